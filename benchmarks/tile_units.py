"""minicnn in bfloat16 with less of the processor than it has: without AMX, and without AVX512-BF16 either.

    python benchmarks/tile_units.py [--nets NAME ...] [--units NAME ...] [--threads 2] [--seconds 2]

One processor stands for several: MINICNN_TILE_UNIT makes a process do without AMX, or without any
instruction for bfloat16, and MINICNN_CPU_LEVEL takes kernels without AVX-512.  In each process steps in
bfloat16 and in float32 take turns.  Peak memory is by how much five training steps raise that of a process
of their own.  benchmarks/results/tile_units.json has an entry for each unit; what the processor lacks is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

from minicnn.backends import compiler
from minicnn.backends.module_file import LEVEL_VARIABLE

PRECISIONS = ("bfloat16", "float32")


class Unit(NamedTuple):
    """What a process may use: environment variables, and what the processor must have."""

    variables: dict[str, str]
    features: frozenset[str]


UNITS = {
    "AMX": Unit({}, frozenset({"amx_tile", "amx_bf16"})),
    "AVX512-BF16": Unit({"MINICNN_TILE_UNIT": "vector"}, frozenset({"avx512_bf16"})),
    "neither, AVX-512": Unit({"MINICNN_TILE_UNIT": "none"}, frozenset({"avx512f"})),
    "neither, AVX2": Unit(
        {"MINICNN_TILE_UNIT": "none", LEVEL_VARIABLE: "x86-64-v3"}, frozenset({"avx2"})
    ),
}  # fmt: skip


def times(name: str, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of both precisions in this process, by phase."""
    from bfloat16 import OURS, OURS_FLOAT32, PHASES
    from nets import NETS
    from paired import time_in_turn

    n, rows = NETS[name].batches[0], dict(zip(PRECISIONS, (OURS, OURS_FLOAT32), strict=True))
    found = {}
    for phase, (make, _, check) in PHASES.items():
        check({row: make(row, name, n) for row in rows.values()})
        calls = {precision: make(row, name, n) for precision, row in rows.items()}
        found[phase] = {side: round(ms, 3) for side, ms in time_in_turn(calls, seconds=seconds).items()}
    return found


def memory_of(name: str, precision: str) -> float:
    """MB by which training in this precision raises the peak memory of this process."""
    from bfloat16 import OURS, OURS_FLOAT32, bfloat16_step
    from memory import grown
    from nets import NETS

    row = OURS if precision == "bfloat16" else OURS_FLOAT32
    return round(grown(bfloat16_step(row, name, NETS[name].batches[0])), 1)


def asked(unit: Unit, args: argparse.Namespace, *what: str) -> Any:
    """What this script prints in a process of its own that has this unit."""
    command = [sys.executable, __file__, "--threads", str(args.threads), "--seconds", str(args.seconds)]
    done = subprocess.run(
        [*command, "--ask", *what], env={**os.environ, **unit.variables}, stdout=subprocess.PIPE,
        text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    from nets import NETS
    from paired import load, machine, save
    from rows import use_threads

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--units", nargs="+", choices=UNITS, default=[*UNITS])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time of each precision")
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_threads(args.threads)
    if args.ask:
        print(json.dumps(memory_of(*args.ask) if len(args.ask) == 2 else times(args.ask[0], args.seconds)))
        return
    for label in args.units:
        unit = UNITS[label]
        if lacking := unit.features - set(compiler.cpu_features()):
            print(f"{label}: this processor lacks {', '.join(sorted(lacking))}")
            continue
        nets = {}
        for name in args.nets:
            nets[f"{name}, {NETS[name].batches[0]}"] = found = {
                "milliseconds": asked(unit, args, name),
                "peak growth, MB": {p: asked(unit, args, name, p) for p in PRECISIONS},
            }
            print(label, name, json.dumps(found), flush=True)
        save("tile_units", load("tile_units") | {label: {"machine": machine(args.threads), "nets": nets}})


if __name__ == "__main__":
    main()
