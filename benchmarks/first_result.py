"""The first result and the memory of a session and of its peers, each in a process of its own.

    python benchmarks/first_result.py [--nets NAME ...] [--precision float32 bfloat16] [--threads 1]
        [--no-compile]

Libraries are loaded, and the net is built, or exported for the peers, beforehand.  Then come the seconds
until the first result of one image, with everything that the side prepares, and by how much ten calls and
the preparation raised the resident memory of the process.  benchmarks/results/first_result.json has an
entry for each net, precision and number of threads; only the measured ones are replaced.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nets import NETS, batch, build
from paired import load, machine, save
from results import count

SIDES = {
    "float32": ("session", "OpenVINO", "ONNX Runtime", "torch.compile"),
    "bfloat16": ("session", "OpenVINO"),
}
LIBRARIES = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime", "torch.compile": "torch._inductor"}


def resident() -> float:
    """MiB of this process that are in memory; what was freed is given back to the system before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def maker(side: str, name: str, precision: str) -> Callable[[], Callable[[], object]]:
    """A function that prepares the side's call; what it needs is loaded and built before."""
    from rows import engine, export, torch_inference

    from minicnn import InferenceSession

    x, _ = batch(name, 1)
    if side in LIBRARIES:
        importlib.import_module(LIBRARIES[side])
    if side == "session":
        model = build(name, "cpp")

        def prepared() -> Callable[[], object]:
            session = InferenceSession(model, precision=precision)
            return lambda: session.run(x)

        return prepared
    model = build(name, "numpy")
    if side == "torch.compile":
        return lambda: torch_inference(side, model, x)
    exported = export(model, x)
    return lambda: engine(side, exported, x, precision)


def measure(side: str, name: str, precision: str, threads: int) -> dict[str, float]:
    """Seconds until the first result, and MiB that the process has more after ten."""
    from rows import use_threads

    use_threads(threads)
    make = maker(side, name, precision)
    before, start = resident(), time.perf_counter()
    call = make()
    call()
    first = time.perf_counter() - start
    for _ in range(9):
        call()
    return {"first result, s": round(first, 4), "memory, MiB": round(resident() - before, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--precision", nargs="+", choices=SIDES, default=[*SIDES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--side", help="measure this side alone in this process, and print the result")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.nets[0], args.precision[0], args.threads)))
        return
    for name in args.nets:
        for precision in args.precision:
            entry: dict[str, Any] = {
                "net": name, "precision": precision, "sides": {}, "machine": machine(args.threads),
            }  # fmt: skip
            for side in SIDES[precision]:
                if side == "torch.compile" and args.no_compile:
                    continue
                wanted = ["--side", side, "--nets", name, "--precision", precision]
                command = [sys.executable, __file__, *wanted, "--threads", str(args.threads)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                entry["sides"][side] = json.loads(done.stdout.splitlines()[-1])
            key = f"{name}, {precision}, {count(args.threads)}"
            print(key, entry["sides"], flush=True)
            save("first_result", load("first_result") | {key: entry})


if __name__ == "__main__":
    main()
