"""Whole training steps and inference of the cpp backend and its peers, which take turns in one process.

    python benchmarks/steps.py [--nets NAME ...] [--batches N ...] [--phases training inference]
        [--rows ROW ...] [--threads 2] [--seconds 2] [--no-compile] [--check]

Peers are PyTorch eager, channels-last and through torch.compile; in training also JAX, in inference also
ONNX Runtime and OpenVINO, if they are installed.  torch.compile takes up to a minute for each batch size,
so it is measured only at each net's main batch size and at 1.  Before anything is timed, the results are
checked to agree.  benchmarks/results/steps.json has an entry for each net, batch size, phase and number of
threads; only the measured ones are replaced.  With --check nothing is measured or written.
"""

from __future__ import annotations

import argparse
from typing import Any

from nets import NETS
from paired import load, save
from results import count
from rows import (
    INFERENCE,
    TRAINING,
    check_logits,
    check_losses,
    inference,
    measured,
    training_step,
    use_threads,
)  # fmt: skip

PHASES = {
    "training": (training_step, TRAINING, check_losses),
    "inference": (inference, INFERENCE, check_logits),
}


def measure(phase: str, name: str, n: int, args: argparse.Namespace) -> dict[str, Any]:
    """The result's entry: milliseconds of each row, or none with --check."""
    make, rows, check = PHASES[phase]
    compiled = n in (1, NETS[name].batches[0]) and not args.no_compile
    chosen = tuple(
        row for row in rows if row in (args.rows or rows) and (compiled or row != "torch.compile")
    )
    return measured(make, chosen, check, {"net": name, "batch": n, "phase": phase}, args)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--batches", nargs="+", type=int, help="(default: those of each net)")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=[*PHASES])
    parser.add_argument("--rows", nargs="+", help="(default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time of each row")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--check", action="store_true", help="check that all agree, and measure nothing")
    parser.add_argument("--out", default="steps", help="name of the result file")
    args = parser.parse_args()
    use_threads(args.threads)
    # Inference comes first: OpenVINO forks, which is not safe once JAX has started its threads.
    for phase in sorted(args.phases):
        for name in args.nets:
            for n in args.batches or NETS[name].batches:
                entry = measure(phase, name, n, args)
                key = f"{name}, batch {n}, {phase}, {count(args.threads)}"
                print(key, entry["milliseconds"], entry["skipped"] or "", flush=True)
                if not args.check:
                    save(args.out, load(args.out) | {key: entry})


if __name__ == "__main__":
    main()
