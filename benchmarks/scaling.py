"""Training steps of 2 processes, of 1, and of PyTorch's DistributedDataParallel; they take turns.

    python benchmarks/scaling.py [NET ...]        writes benchmarks/results/scaling.json

All sides compute the same step: one process of two threads the whole batch, two processes of one thread
half of it each.  Then the exchange of gradients alone is timed between 2 and 4 processes; `links` predicts
what more workers would take.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from links import fitted, ours
from nets import NETS, batch, build, named_nets, torch_step
from paired import machine, save, time_in_turn

from minicnn import Trainer, distributed, optim, set_num_threads
from minicnn.distributed.layout import Layout
from minicnn.distributed.processes import finish
from scripts import workers

MOMENTUM = 0.9
STEPS = 5
"""Steps in each call that is timed."""
SIZES = (4_000, 40_000_000)
"""Bytes of the rows whose exchange is timed."""
EXCHANGES = 30
PIECE = 1 << 20
"""Numbers that are summed together, about as many as a large layer has."""
REDUCE = {"2 processes, ordered": "ordered", "2 processes, fast": "fast"}
DDP = "2 processes, PyTorch DDP"


def our_step(name: str, shards: int, reduce: str) -> Callable[[], float]:
    """A step of this process's share of the net's main batch."""
    x, y = batch(name, NETS[name].batches[0])
    trainer = Trainer(build(name, "cpp"), optim.SGD(NETS[name].lr, MOMENTUM), shards=shards, reduce=reduce)
    return lambda: trainer.step(x, y)


def ddp_step(name: str) -> Callable[[], float]:
    """The same step by PyTorch, channels-last."""
    from minicnn.torch_reference import to_torch

    group = distributed.current()
    x, y = (torch.as_tensor(a) for a in batch(name, NETS[name].batches[0]))
    module = to_torch(build(name, "numpy")).to(memory_format=torch.channels_last).train()
    half = slice(group.rank * len(x) // group.size, (group.rank + 1) * len(x) // group.size)
    images = x[half].to(memory_format=torch.channels_last)
    module = torch.nn.parallel.DistributedDataParallel(module)
    return torch_step(module, images, y[half], NETS[name].lr, MOMENTUM)


def serve(pipes: list[Connection]) -> None:
    """In a process of a group: make the step of a net and side, or do it once, as the pipe asks."""
    set_num_threads(1)
    with distributed.group() as group:
        pipe = pipes[group.rank]
        steps: dict[str, Callable[[], float]] = {}
        while (asked := pipe.recv()) is not None:
            side, name = asked
            if name is not None:
                steps[side] = ddp_step(name) if side == DDP else our_step(name, 2, REDUCE[side])
            pipe.send(None if name is not None else several(steps[side]))


@contextmanager
def served(size: int) -> Iterator[list[Connection]]:
    """Pipes to the processes of a group that `serve`."""
    ends = [Pipe() for _ in range(size)]
    with tempfile.TemporaryDirectory() as log:
        started = workers.start(size, Path(log), serve, [theirs for _, theirs in ends])
        yield [mine for mine, _ in ends]
        for mine, _ in ends:
            mine.send(None)
        workers.end(started)


def ask(pipes: list[Connection], side: str, name: str | None = None) -> Any:
    """Have all processes do the same, and wait for them; what the first answers."""
    for pipe in pipes:
        pipe.send((side, name))
    answers = [pipe.recv() for pipe in pipes]
    return answers[0]


def several(step: Callable[[], float]) -> list[float]:
    """The losses of some steps, so that asking for them costs hardly anything."""
    return [step() for _ in range(STEPS)]


def alone(threads: int, step: Callable[[], float]) -> list[float]:
    torch.set_num_threads(threads)
    return several(step)


def time_net(name: str, pipes: list[Connection]) -> dict[str, Any]:
    """Median milliseconds of a step of each side."""
    for side in (*REDUCE, DDP):
        ask(pipes, side, name)
    one = our_step(name, 1, "ordered")
    sides: dict[str, Callable[[], Any]] = {
        "1 process, 1 thread": partial(alone, 1, one),
        "1 process, 2 threads": partial(alone, 2, one),
        **{side: partial(ask, pipes, side) for side in (*REDUCE, DDP)},
    }
    times = {side: milliseconds / STEPS for side, milliseconds in time_in_turn(sides).items()}
    row = Layout(build(name, "cpp")).length * 4
    return {"batch": NETS[name].batches[0], "bytes": row, "milliseconds": times}


def time_exchange(out: Path) -> None:
    """In a process of a group: the median seconds of sums of rows of each size."""
    set_num_threads(1)
    with distributed.group() as group:
        for size in SIZES:
            row, room = torch.zeros(size // 4), torch.zeros(size // 4)
            places = [slice(start, start + PIECE) for start in range(0, len(row), PIECE)]
            seconds = []
            for _ in range(EXCHANGES):
                group.meet()
                start = time.perf_counter()
                finish([group.begin_add(row[place], room[place]) for place in places])
                seconds.append(time.perf_counter() - start)
            if group.is_first:
                (out / str(size)).write_text(repr(sorted(seconds)[EXCHANGES // 2]))


def exchange_times(size: int) -> dict[int, float]:
    """Bytes of a row -> seconds of its exchange between so many processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        codes = workers.end(workers.start(size, out / "log", time_exchange, out))
        if any(codes):
            sys.exit(f"an exchange between {size} processes ended with {codes}")
        return {size: float((out / str(size)).read_text()) for size in SIZES}


def main() -> None:
    """Time all nets, or those that are named."""
    names, nets = named_nets(__doc__), {}
    with served(2) as pipes:
        for name in names:
            nets[name] = time_net(name, pipes)
            print(name, nets[name], flush=True)
    two, four = exchange_times(2), exchange_times(4)
    link, large = fitted(two), SIZES[-1]
    checks = {
        str(size): {"measured": times[large], "predicted": ours(size, large, link)}
        for size, times in ((2, two), (4, four))
    }
    save("scaling", {
        "machine": machine(2), "nets": nets, "link": link._asdict(), "exchange_bytes": large,
        "exchange": checks,
    })  # fmt: skip


if __name__ == "__main__":
    main()
