"""Predictions of a model that is prepared once: `InferenceSession` and its peers, which take turns.

    python benchmarks/session.py [--nets NAME ...] [--batches N ...] [--precision float32 bfloat16]
        [--threads 2] [--seconds 1] [--no-compile] [--tail] [--check] [--cuda]

Peers are minicnn's own predict, ONNX Runtime and OpenVINO, if they are installed, and torch.compile, which
is measured at the batch sizes 1 and 128.  In bfloat16 the peer is OpenVINO in its own bfloat16.  Before
anything is timed, the results are checked to agree.  Of a session it also says the memory; first_result.py
has that of the peers.  With --tail it measures the median and the 99th
percentile of 10,000 single calls at a batch of 1 instead.  benchmarks/results/session.json has an entry for
each net, batch size, precision and number of threads; only the measured ones are replaced.

With --cuda a session on cuda, whose operations are one CUDA graph, and predict there, operation by
operation, take turns.  Their entries are in benchmarks/results/session_cuda.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from nets import NETS, batch, build
from paired import load, machine, save, time_in_turn
from results import count
from rows import Call, engine_inference, torch_inference, use_threads

from minicnn import InferenceSession

BATCHES = (1, 8, 32, 128)
COMPILED_BATCHES = (1, 128)
TAIL_CALLS = 10_000
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}
"""How far results of a side may be from the session's, as a part of the largest logit."""


def session(name: str, n: int, precision: str, backend: str) -> InferenceSession:
    return InferenceSession(build(name, backend), batch_size=n, precision=precision)


def makers(
    name: str, x: np.ndarray, precision: str, backend: str, compiled: bool
) -> dict[str, Callable[[], Call]]:
    """For each side, a function that makes its call."""

    def made_session() -> Call:
        made = session(name, len(x), precision, backend)
        return lambda: made.run(x)

    def made_predict() -> Call:
        model = build(name, backend, precision=precision)
        return lambda: model.predict(x)

    def made_engine(row: str) -> Callable[[], Call]:
        return lambda: engine_inference(row, build(name, "numpy"), x, precision)

    sides = {"session": made_session, "predict": made_predict}
    if backend == "cuda":
        return sides
    sides["OpenVINO"] = made_engine("OpenVINO")
    if precision == "float32":
        sides["ONNX Runtime"] = made_engine("ONNX Runtime")
        if compiled:
            sides["torch.compile"] = lambda: torch_inference("torch.compile", build(name, "numpy"), x)
    return sides


def made(sides: dict[str, Callable[[], Call]], tolerance: float) -> tuple[dict[str, Call], dict[str, str]]:
    """The calls, and why others are skipped; all agree."""
    calls: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    expected: np.ndarray | None = None
    for side, make in sides.items():
        try:
            call = make()
        except ImportError as error:
            skipped[side] = str(error)
            continue
        result = call()
        expected = result if expected is None else expected
        bound = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=bound, err_msg=side)
        calls[side] = call
    return calls, skipped


def tail(calls: dict[str, Call]) -> dict[str, dict[str, float]]:
    """The median and the 99th percentile of single calls, in milliseconds; the sides take turns."""
    times: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(TAIL_CALLS // 100):
        for side, call in calls.items():
            for _ in range(100):
                start = time.perf_counter()
                call()
                times[side].append((time.perf_counter() - start) * 1e3)
    return {
        side: {"p50": round(float(np.percentile(t, 50)), 4), "p99": round(float(np.percentile(t, 99)), 4)}
        for side, t in times.items()
    }


def measure(name: str, n: int, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """The result's entry."""
    x, _ = batch(name, n)
    compiled = n in COMPILED_BATCHES and not args.no_compile
    backend = "cuda" if args.cuda else "cpp"
    calls, skipped = made(makers(name, x, precision, backend, compiled), TOLERANCES[precision])
    entry: dict[str, Any] = {
        "net": name, "batch": n, "precision": precision, "skipped": skipped,
        "memory": session(name, n, precision, backend).memory._asdict(), "machine": machine(args.threads),
    }  # fmt: skip
    if args.check:
        return entry
    if args.tail:
        return entry | {"tail": tail(calls)}
    times = time_in_turn(calls, seconds=args.seconds)
    return entry | {"milliseconds": {side: round(t, 4) for side, t in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--precision", nargs="+", choices=TOLERANCES, default=[*TOLERANCES])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time of each side")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--tail", action="store_true", help="median and 99th percentile of single calls")
    parser.add_argument("--cuda", action="store_true", help="a session on cuda, and predict there")
    parser.add_argument("--check", action="store_true", help="check that all agree, and measure nothing")
    args = parser.parse_args()
    use_threads(args.threads)
    for name in args.nets:
        for precision in args.precision:
            for n in (1,) if args.tail else args.batches:
                entry = measure(name, n, precision, args)
                key = f"{name}, batch {n}, {precision}, {count(args.threads)}"
                print(key, entry.get("milliseconds", entry.get("tail")), entry["skipped"] or "", flush=True)
                if not args.check:
                    file = "session_cuda" if args.cuda else "session"
                    saved = load(file)
                    save(file, saved | {key: saved.get(key, {}) | entry})


if __name__ == "__main__":
    main()
