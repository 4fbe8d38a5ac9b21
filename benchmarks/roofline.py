"""Each operation's share of the machine's peaks; cpp and PyTorch take turns on the shapes of real networks.

    python benchmarks/roofline.py [--only TEXT] [--threads 2] [--seconds 0.25]

The shares count the multiply-adds of the plain sum, and each input and output once.  So a kernel can be
above 100% if it needs fewer multiply-adds (Winograd, gradients of a convolution with a max-pool) or finds
its data in the cache.  The figures are added to those of this processor in
benchmarks/results/roofline.json.
"""

from __future__ import annotations

import argparse
from typing import Any

from kernels import Kernel, check, kernels
from paired import load, machine, save, time_in_turn
from peak import peak_gflops, peak_gigabytes
from rows import use_threads

ROWS = ("minicnn cpp", "torch eager", "torch channels-last")


def measure(kernel: Kernel, seconds: float) -> dict[str, Any]:
    """Milliseconds of each row, and the least work of the kernel."""
    calls = {row: kernel.make(row) for row in ROWS}
    expected = calls["torch eager"]()
    for row, call in calls.items():
        check(kernel, row, call(), expected)
    times = time_in_turn(calls, seconds=seconds)
    return {
        "MFLOP": round(kernel.flops / 1e6, 3), "MB": round(kernel.bytes / 1e6, 3),
        "milliseconds": {row: round(t, 4) for row, t in times.items()},
    }  # fmt: skip


def of_this_machine(saved: dict[str, Any], this: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The saved figures and peaks, if they are of this processor and number of threads; else none."""
    names = [kernel.name for kernel in kernels()]
    found = {name: saved["kernels"][name] for name in names if name in saved.get("kernels", {})}
    same = all(entry["machine"][key] == this[key] for entry in found.values() for key in ("cpu", "threads"))
    return {"peaks": saved["peaks"], "kernels": found} if found and same else {"peaks": {}, "kernels": {}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.25, help="measuring time of each row")
    args = parser.parse_args()
    use_threads(args.threads)
    this = machine(args.threads)
    peaks = {"GFLOP/s": peak_gflops(args.threads), "GB/s": peak_gigabytes(args.threads)}
    earlier = of_this_machine(load("roofline"), this)
    peaks |= {name: max(peak, peaks[name]) for name, peak in earlier["peaks"].items()}
    measured = earlier["kernels"]
    for kernel in kernels():
        if args.only in kernel.name:
            measured[kernel.name] = measure(kernel, args.seconds) | {"machine": this}
            print(kernel.name, measured[kernel.name], flush=True)
            save("roofline", {"peaks": peaks, "kernels": measured})


if __name__ == "__main__":
    main()
