"""Runs CUDA kernels on the CPU, and counts what their memory requests and branches would cost a GPU.

    python scripts/cuda_counts.py               the programs of examples/cuda_counts
    python scripts/cuda_counts.py FILE.cu ...   other programs of one file
    python scripts/cuda_counts.py --read FILE   what a run with MINICNN_CUDA_COUNT=FILE has saved

For each kernel and each line that loads or stores it prints how many requests its warps make, and

    sectors    how many pieces of 32 bytes of global memory they touch, beside the least that hold the bytes
    turns      how often the banks of shared memory are busy, and how many of these turns a conflict costs

and for each kernel the sectors of each array as often as blocks touch them, and once; and its branches at
which lanes of a warp parted.  docs/counts.md explains the words.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
EXAMPLES = ROOT / "examples" / "cuda_counts"

FLAGS = (
    "-std=c++20", "-O1", "-g1", "-fno-tree-sra", "-fsanitize=thread", "-U__SANITIZE_THREAD__",
    "-fsanitize-coverage=trace-pc", "-DMINICNN_CUDA_COUNT=1", "-Wno-unknown-pragmas",
)  # fmt: skip
"""The compiler reports each load, store and basic block; values of 16 bytes stay whole."""

HELPERS = ("vector.h", "cuda_runtime.h", "cuda_pipeline.h", "mma.h", "emulation.h")
"""Files whose lines are named by their callers."""


@dataclass
class Line:
    """What one line of a kernel asks of one array, in all its requests together."""

    where: str
    access: str
    shared: bool
    array: str
    bytes: int
    requests: int = 0
    lanes: int = 0
    sectors: int = 0
    least_sectors: int = 0
    turns: int = 0
    conflicts: int = 0


@dataclass
class Kernel:
    """The counts of a kernel, of all its launches."""

    name: str
    launches: int
    blocks: int
    run: int
    lines: list[Line] = field(default_factory=list)
    divergent: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Line -> how often warps came to the branch, and how often their lanes parted there."""
    arrays: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> sectors, each once in a block, and each once in a launch."""

    def total(self, what: str, *, shared: bool) -> int:
        """The sum of a count over the lines that touch shared memory, or over the others."""
        return sum(getattr(line, what) for line in self.lines if line.shared == shared)


# ---- building and running ----------------------------------------------------------------------------


def compiler_missing() -> str | None:
    """Why no program can be built here; None if it can."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler {compiler}; install one, on Debian with: apt-get install g++"
    if shutil.which("addr2line") is None:
        return "addr2line is missing; install it, on Debian with: apt-get install binutils"
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return "g++ is needed, set CXX to it" if "clang" in done.stdout else None


def build(sources: Iterable[Path], folder: Path) -> Path:
    """A program of these files whose kernels report what they do."""
    reason = compiler_missing()
    if reason is not None:
        raise RuntimeError(reason)
    compiler = os.environ.get("CXX", "g++")
    includes = [f"-I{CSRC / 'cuda_emulation'}", f"-I{CSRC}", f"-I{EXAMPLES}"]

    def compile_file(source: Path) -> str:
        target = str(folder / f"{source.stem}.o")
        _run([compiler, *FLAGS, *includes, "-x", "c++", "-c", str(source), "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_file, sources))
    program = folder / "program"
    _run([compiler, *objects, "-Wl,--gc-sections", "-o", str(program)])
    return program


def run(program: Path, *, blocks: int = 0) -> list[Kernel]:
    """The counts of a run; ``blocks`` of each launch, spread over its grid, or all with 0."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "counts.json"
        _run([str(program)], MINICNN_CUDA_COUNT=str(saved), MINICNN_CUDA_COUNT_BLOCKS=str(blocks))
        return read(saved)


def _run(command: list[str], **variables: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}\n{done.stderr}")


# ---- reading what was counted ------------------------------------------------------------------------


def read(path: Path) -> list[Kernel]:
    """The kernels of a saved file, with the names of their functions and lines."""
    raw = json.loads(path.read_text())
    places = [entry for kernel in raw for entry in [kernel, *kernel["places"], *kernel["branches"]]]
    frames = symbols(places)
    kernels = []
    for entry in raw:
        name = short(frames[entry["file"], entry["at"]][-1][0])
        kernel = Kernel(name, entry["launches"], entry["blocks"], entry["run"])
        _add_lines(kernel, entry["places"], frames)
        for branch in entry["branches"]:
            if branch["divergent"]:
                line = place(frames[branch["file"], branch["at"]])
                runs, parted = kernel.divergent.get(line, (0, 0))
                kernel.divergent[line] = (runs + branch["runs"], parted + branch["divergent"])
        for array in entry["arrays"]:
            kernel.arrays[array["array"]] = (array["in_blocks"], array["in_launches"])
        kernels.append(kernel)
    return kernels


Frames = list[tuple[str, str]]
"""A function's name and its file and line, from the innermost that was inlined outwards."""


def _add_lines(kernel: Kernel, places: list[dict[str, Any]], frames: dict[tuple[str, int], Frames]) -> None:
    lines: dict[tuple[Any, ...], Line] = {}
    for entry in places:
        key = (place(frames[entry["file"], entry["at"]]), entry["access"], entry["shared"], entry["array"],
               entry["bytes"])  # fmt: skip
        line = lines.setdefault(key, Line(*key))
        for what in ("requests", "lanes", "sectors", "least_sectors", "turns", "conflicts"):
            setattr(line, what, getattr(line, what) + entry[what])
    kernel.lines += sorted(lines.values(), key=lambda line: (line.shared, line.array, line.where))


def symbols(places: list[dict[str, Any]]) -> dict[tuple[str, int], Frames]:
    """The frames of each place in the code, by its file and address."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for entry in places:
        wanted[entry["file"]].add(entry["at"])
    found = {}
    for file, addresses in wanted.items():
        ordered = sorted(addresses)
        asked = "\n".join(map(hex, ordered))
        command = ["addr2line", "--exe", file, "--addresses", "--functions", "--inlines", "--demangle"]
        printed = subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout
        for address, text in zip(
            ordered, re.split(r"^0x[0-9a-f]+\n", printed, flags=re.M)[1:], strict=True
        ):
            lines = text.splitlines()
            found[file, address] = list(zip(lines[::2], lines[1::2], strict=True))
    return found


def place(frames: Frames) -> str:
    """The innermost line that is no helper's, and the line that called its function."""
    named = [re.sub(r" \(discriminator \d+\)$", "", line) for _, line in frames]
    named = [Path(line).name for line in named]
    own = [line for line in named if not line.startswith(HELPERS)] or named
    return own[0] if len(own) == 1 else f"{own[0]} < {own[1]}"


def short(name: str) -> str:
    """A kernel's name without namespaces, return type and parameters."""
    name = re.sub(r"minicnn::|cuda::|\(anonymous namespace\)::", "", name.removeprefix("void "))
    depth = 0
    for i, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:i]
    return name


# ---- printing ----------------------------------------------------------------------------------------


def table(kernel: Kernel) -> str:
    """The counts of a kernel as text."""
    some = "" if kernel.run == kernel.blocks else f", {kernel.run} of them counted"
    rows = [f"== {kernel.name}: {kernel.blocks} blocks{some}"]
    rows.append("   requests  bytes    sectors      least      turns  conflicts  memory          line")
    for line in kernel.lines:
        memory = "shared" if line.shared else line.array or "global"
        sectors = ["", ""] if line.shared else [str(line.sectors), str(line.least_sectors)]
        turns, conflicts = (line.turns, line.conflicts) if line.shared else ("", "")
        rows.append(
            f"{line.requests:11d}  {line.bytes:5d}  {sectors[0]:>9}  {sectors[1]:>9}  {turns:>9}  "
            f"{conflicts:>9}  {line.access + ' ' + memory:14}  {line.where}"
        )
    for array, (blocks, once) in kernel.arrays.items():
        rows.append(f"{array or 'global'}: {32 * blocks} bytes, each once in a block; {32 * once} in all")
    for where, (runs, parted) in kernel.divergent.items():
        rows.append(f"lanes part {parted} times of {runs} at {where}")
    return "\n".join(rows)


def print_all(kernels: list[Kernel]) -> None:
    print("\n\n".join(table(kernel) for kernel in kernels) + "\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.cu", help="programs to build and run")
    parser.add_argument("--read", type=Path, metavar="FILE", help="print what a run has saved")
    parser.add_argument("--blocks", type=int, default=0, help="run this many blocks of each launch only")
    args = parser.parse_args()
    if args.read:
        print_all(read(args.read))
        return
    for file in args.files or sorted(EXAMPLES.glob("*.cu")):
        with tempfile.TemporaryDirectory() as folder:
            print_all(run(build([file], Path(folder)), blocks=args.blocks))


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError) as error:
        raise SystemExit(str(error)) from None
