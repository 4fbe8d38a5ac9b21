"""Where a step of two processes spends its time, beside one process of two threads.

    python benchmarks/process_parts.py [NET ...]        writes benchmarks/results/process_parts.json

Forward pass, backward pass, the wait for the sums after it, the optimizer, and what is left.  Then the
library alone sends as many bytes both ways: the milliseconds of that, and how much of them a processor
works.  Where all processors compute, this work cannot be hidden behind the backward pass.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
from nets import NETS, batch, build, named_nets
from paired import machine, save

from minicnn import Trainer, distributed, optim, set_num_threads
from minicnn.distributed import overlap
from minicnn.distributed.layout import Layout
from minicnn.graph import run
from scripts import workers

PARTS = {
    "forward": (run, "forward"), "backward": (run, "backward"), "wait": (overlap, "finish"),
    "optimizer": (optim.Optimizer, "step"),
}  # fmt: skip
SECONDS = 0.8
"""For the steps of each net, and for its exchanges."""


def timed_parts() -> dict[str, float]:
    """The milliseconds that each part takes in this process from now on; to be cleared for each step."""
    spent: dict[str, float] = {}

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                spent[part] = spent.get(part, 0.0) + 1e3 * (time.perf_counter() - start)

        return instead

    for part, (owner, name) in PARTS.items():
        setattr(owner, name, timed(part, getattr(owner, name)))
    return spent


def repeated(call: Callable[[], object], count: int, spent: dict[str, float]) -> dict[str, float]:
    """Milliseconds of a call's parts, of all of it, and of the work of this process's threads.

    They are the means over the middle half of the calls, so that the parts add up.
    """
    samples: list[dict[str, float]] = []
    for _ in range(count):
        spent.clear()
        start, work = time.perf_counter(), time.process_time()
        call()
        whole, work = time.perf_counter() - start, time.process_time() - work
        samples.append({**spent, "all": 1e3 * whole, "processor": 1e3 * work})
    samples.sort(key=lambda sample: sample["all"])
    middle = samples[count // 4 : count - count // 4]
    return {name: fmean(sample[name] for sample in middle) for name in middle[0]}


def exchange(mine: torch.Tensor, room: torch.Tensor, partner: int) -> None:
    """Send an array and receive another one, by the library alone."""
    for work in (dist.irecv(room, partner), dist.isend(mine, partner)):
        work.wait()


def work(names: list[str], threads: int, out: Path) -> None:
    """In a process of a group: time the steps of each net, and the exchange of its gradients."""
    set_num_threads(threads)
    spent, found = timed_parts(), {}
    with distributed.group() as group:

        def timed(call: Callable[[], object]) -> dict[str, float]:
            first = [repeated(call, 1, spent)["all"] for _ in range(4)][1:]
            return repeated(call, group.tell(max(8, int(1e3 * SECONDS / min(first)))), spent)

        for name in names:
            x, y = batch(name, NETS[name].batches[0])
            model = build(name, "cpp")
            trainer = Trainer(model, optim.SGD(NETS[name].lr, 0.9))
            length = Layout(model).length
            found[name] = {"bytes": 4 * length, "step": timed(partial(trainer.step, x, y))}
            if group.size == 2:
                mine, room = torch.zeros(length), torch.zeros(length)
                found[name]["exchange"] = timed(partial(exchange, mine, room, 1 - group.rank))
    if group.is_first:
        out.write_text(json.dumps(found))


def main() -> None:
    """Time all nets, or those that are named."""
    names, nets = named_nets(__doc__), {}
    for side, size, threads in (("1 process, 2 threads", 1, 2), ("2 processes", 2, 1)):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found"
            codes = workers.end(workers.start(size, Path(folder) / "log", work, names, threads, out))
            if any(codes):
                sys.exit(f"{side} ended with {codes}")
            nets[side] = json.loads(out.read_text())
    save("process_parts", {"machine": machine(2), "sides": nets})


if __name__ == "__main__":
    main()
