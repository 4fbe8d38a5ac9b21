"""Peak memory of training steps in minicnn and PyTorch, each measured in a process of its own.

    python benchmarks/memory.py        writes benchmarks/results/memory.json

The figure says by how much five steps raise the peak resident memory of the process.  Libraries and the net
are loaded before the first step, so they are not counted.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SIDES = ("minicnn cpp", "torch eager", "torch channels-last")


def peak() -> float:
    """Peak resident memory of this process so far in MB (Linux counts it in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(side: str, name: str, n: int) -> float:
    """MB that five training steps of this side add."""
    from rows import training_step, use_threads

    use_threads(2)
    return grown(training_step(side, name, n))


def grown(step: Callable[[], float]) -> float:
    """MB by which five calls of a training step raise the peak of this process."""
    import numpy as np

    before = peak()
    losses = [step() for _ in range(5)]
    assert np.isfinite(losses).all()
    return peak() - before


def main() -> None:
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
        return
    from nets import NETS
    from paired import machine, save

    result: dict[str, Any] = {"machine": machine(2), "peak growth, MB": {}}
    for name, net in NETS.items():
        row = {}
        for side in SIDES:
            command = [sys.executable, __file__, side, name, str(net.batches[0])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row[side] = round(json.loads(done.stdout.splitlines()[-1]), 1)
        result["peak growth, MB"][f"{name}, batch {net.batches[0]}"] = row
        print(name, row, flush=True)
    save("memory", result)


if __name__ == "__main__":
    main()
