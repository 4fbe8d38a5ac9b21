"""The CPU's kernels compiled for each level of x86-64, against those compiled for this processor.

    python benchmarks/levels.py [--nets vgg_like ...] [--threads 2]    writes benchmarks/results/levels.json

Each level runs in a process of its own, and the processes take turns.  Beside the times stands how much
the losses of ten training steps differ from those of the kernels for this processor, relative to the first.
Levels that the processor lacks are left out.  What is not built yet is built first, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from paired import machine, save
from revisions import PHASES, ROOT, Worker

from minicnn.backends.levels import LEVELS, NATIVE
from minicnn.backends.module_file import LEVEL_VARIABLE

STEPS = 10


def losses(name: str) -> list[float]:
    """The losses of some training steps of a net on one batch."""
    from nets import NETS, batch, build

    from minicnn import Trainer, optim

    trainer = Trainer(build(name, "cpp"), optim.SGD(NETS[name].lr, momentum=0.9))
    x, y = batch(name, NETS[name].batches[0])
    return [float(trainer.step(x, y)) for _ in range(STEPS)]


def losses_on(level: str, name: str) -> np.ndarray:
    """The same, in a process of its own that uses the kernels for a level."""
    command = [sys.executable, __file__, "--losses", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), LEVEL_VARIABLE: level}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return np.array(json.loads(done.stdout))


def compare(workers: dict[str, Worker], what: str, seconds: float) -> dict[str, float]:
    """Median milliseconds on each level, measured in turn."""
    times: dict[str, list[float]] = {level: [] for level in workers}
    for worker in workers.values():
        worker.ask(what)
    end = time.monotonic() + seconds * len(workers)
    while time.monotonic() < end or len(times[NATIVE]) < 5:
        for level, worker in workers.items():
            times[level].append(float(worker.ask("")))
    return {level: round(statistics.median(found), 3) for level, found in times.items()}


def main() -> None:
    from nets import NETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["vgg_like", "lenet5", "resnet20"])
    parser.add_argument(
        "--levels", nargs="+", default=[level.name for level in LEVELS if not level.lacking()]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time of each level")
    parser.add_argument("--losses", metavar="NET", help="of this process's kernels")
    args = parser.parse_args()
    if args.losses:
        print(json.dumps(losses(args.losses)))
        return
    names = [NATIVE, *args.levels]
    result: dict[str, Any] = {"machine": machine(args.threads)}
    for name in args.nets:
        native = losses_on(NATIVE, name)
        apart = {level: float(np.abs(losses_on(level, name) - native).max() / native[0]) for level in names}
        workers = {level: Worker(ROOT, args.threads, {LEVEL_VARIABLE: level}) for level in names}
        batch = NETS[name].batches[0]
        entry: dict[str, Any] = {
            f"{phase}, ms": compare(workers, f"{phase} {name} {batch}", args.seconds) for phase in PHASES
        }
        result[f"{name}, {batch}"] = entry | {"losses differ by": apart}
        print(name, json.dumps(result[f"{name}, {batch}"]), flush=True)
    save("levels", result)


if __name__ == "__main__":
    main()
