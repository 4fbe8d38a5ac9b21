"""Two revisions of minicnn against each other: training steps and inference of every net, in turn.

    git worktree add /tmp/before REVISION
    python benchmarks/revisions.py /tmp/before        writes benchmarks/results/revisions.json

Each revision runs in a process of its own.  The two take turns, many times a second, so that a change of
the machine's speed meets both.  The ratio is that of the medians: above 1 this checkout is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("training", "inference")


def work(phase: str, name: str, n: int) -> Callable[[], object]:
    """One training step or one prediction, in whichever revision is imported."""
    from nets import NETS, batch, build

    import minicnn
    from minicnn import Trainer, optim

    model, (x, y) = build(name, "cpp"), batch(name, n)
    if phase == "training":
        trainer = Trainer(model, optim.SGD(NETS[name].lr, momentum=0.9))
        return lambda: trainer.step(x, y)
    fuse = getattr(minicnn, "fuse", None)  # which earlier revisions want before they predict
    if fuse is not None:
        fuse(model)
    return lambda: model.predict(x)


def serve(threads: int) -> None:
    """Read lines: ``phase net batch`` prepares work, an empty line has it timed in a turn of `paired`."""
    from paired import time_in_turn

    import minicnn

    minicnn.set_num_threads(threads)
    call: Callable[[], object] = int
    for line in sys.stdin:
        if line.strip():
            phase, name, n = line.split()
            call = work(phase, name, int(n))
            print("ready", flush=True)
        else:
            times = time_in_turn({"call": call}, seconds=0.0, least_rounds=1)
            print(times["call"], flush=True)


class Worker:
    """A process that runs the code of one checkout, with these environment variables besides."""

    def __init__(self, checkout: Path, threads: int, variables: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", "--threads", str(threads)], cwd=checkout, text=True,
            env={**os.environ, "PYTHONPATH": str(checkout), **(variables or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, line: str) -> str:
        """Send a line, return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a worker ended; its error is above")
        return answer


def compare(before: Worker, after: Worker, what: str, seconds: float) -> tuple[float, float]:
    """Median milliseconds of both, measured in turn."""
    workers = (before, after)
    for worker in workers:
        worker.ask(what)
    times: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[0]) < 5:
        for found, worker in zip(times, workers, strict=True):
            found.append(float(worker.ask("")))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, nargs="?", help="a checkout of the earlier revision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="measuring time of each row")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.threads)
        return
    if args.before is None:
        parser.error("expected a checkout of the earlier revision")
    from nets import NETS
    from paired import machine, save

    before, after = (Worker(path.resolve(), args.threads) for path in (args.before, ROOT))
    rows = {}
    for name, net in NETS.items():
        for n in (net.batches[0], 1):
            for phase in PHASES:
                old, new = compare(before, after, f"{phase} {name} {n}", args.seconds)
                row = {
                    "before, ms": round(old, 3),
                    "after, ms": round(new, 3),
                    "ratio": round(old / new, 3),
                }
                rows[f"{name}, batch {n}, {phase}"] = row
                print(f"{name}, batch {n}, {phase}: {json.dumps(row)}", flush=True)
    described = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=args.before, capture_output=True, text=True, check=True
    )
    about = machine(args.threads) | {"before": described.stdout.strip()}
    save("revisions", {"machine": about, "before and after": rows})


if __name__ == "__main__":
    main()
