"""How much slower calls are where others want the processor, too.

    python benchmarks/neighbours.py [--nets NAME ...] [--threads 2] [--seconds 2] [--check]

Beside a process that computes all the time: a training step of minicnn and of PyTorch.  Beside ONNX
Runtime, whose threads wait actively for its next call: a prediction of one image by a session and by
`predict`, each right after a call of ONNX Runtime.  A figure is the median time there, divided by the
median time alone, both taken in turn.  benchmarks/results/neighbours.json has an entry for each net and
number of threads.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nets import NETS, batch, build
from paired import load, machine, save
from results import count
from rows import Call, engine_inference, training_step, use_threads

from minicnn import InferenceSession

NETS_TIMED = ("lenet5", "simple_cnn", "vgg_like")
TURNS = 4
"""So often alone and beside the neighbour take turns."""


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # it has started by then
        yield
    finally:
        process.kill()
        process.wait()


def times_of(call: Call, seconds: float, before: Callable[[], object] | None = None) -> list[float]:
    """Milliseconds of calls, each right after a call of ``before``."""
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def slowdown(alone: list[float], beside: list[float]) -> dict[str, float]:
    ms, ms_beside = statistics.median(alone), statistics.median(beside)
    return {"alone, ms": round(ms, 4), "beside, ms": round(ms_beside, 4), "times": round(ms_beside / ms, 2)}


def beside_process(name: str, seconds: float) -> dict[str, dict[str, float]]:
    """A training step at the net's main batch size, beside a busy process."""
    n = NETS[name].batches[0]
    found = {}
    for row in ("minicnn cpp", "torch eager"):
        step = training_step(row, name, n)
        step()
        alone: list[float] = []
        beside: list[float] = []
        for _ in range(TURNS):
            alone += times_of(step, seconds / TURNS)
            with busy_process():
                beside += times_of(step, seconds / TURNS)
        found[row] = slowdown(alone, beside)
    return found


def beside_engine(name: str, seconds: float) -> dict[str, dict[str, float]]:
    """A prediction of one image, right after one by ONNX Runtime in the same process."""
    x, _ = batch(name, 1)
    model = build(name, "cpp")
    session = InferenceSession(model)
    engine = engine_inference("ONNX Runtime", build(name, "numpy"), x)
    calls: dict[str, Call] = {"session": lambda: session.run(x), "predict": lambda: model.predict(x)}
    found = {}
    for side, call in calls.items():
        call()
        alone: list[float] = []
        beside: list[float] = []
        for _ in range(TURNS):
            time.sleep(0.2)  # ONNX Runtime's threads sleep by then
            alone += times_of(call, seconds / TURNS)
            beside += times_of(call, seconds / TURNS, engine)
        found[side] = slowdown(alone, beside)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS_TIMED])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time alone, and beside")
    parser.add_argument("--check", action="store_true", help="measure hardly anything, and save nothing")
    args = parser.parse_args()
    use_threads(args.threads)
    seconds = 0.01 if args.check else args.seconds
    for name in args.nets:
        entry: dict[str, Any] = {
            "a busy process": beside_process(name, seconds),
            "ONNX Runtime in the same process": beside_engine(name, seconds),
            "machine": machine(args.threads),
        }
        key = f"{name}, {count(args.threads)}"
        print(key, {place: found for place, found in entry.items() if place != "machine"}, flush=True)
        if not args.check:
            save("neighbours", load("neighbours") | {key: entry})


if __name__ == "__main__":
    main()
