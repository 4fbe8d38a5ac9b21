"""Compiles every CUDA kernel for sm_80 and sm_90, and reports what the compiler made of it.  Needs no GPU.

For each kernel it prints registers, shared memory, spills and theoretical occupancy; for all kernels
together, how many 128-bit loads and stores, asynchronous copies and tensor-core instructions the code has.
``--check`` fails if a kernel spills registers, or lacks one of these instructions that it must have.
``--module`` compiles nothing but the module of the cuda backend, for the one architecture that
TORCH_CUDA_ARCH_LIST names, reports what became of it, and leaves it where it is found at the next use.

    python scripts/cuda_report.py [--arch 80 90 | --module] [--check] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from minicnn.backends import compiler, cuda_build

ROOT = Path(__file__).resolve().parent.parent
THREADS = 256  # in a block of every kernel but those of products
LIMITS = {
    "80": (2048, 65536, 164),
    "90": (2048, 65536, 228),
}  # threads, registers, KiB of shared memory of an SM
RESERVED = 1024  # bytes of shared memory that the system reserves in each block

PATTERNS = {
    "128-bit global loads": r"ld\.global(?:\.nc)?\.(?:v4\.[fub]32|v2\.[fub]64)",
    "128-bit global stores": r"st\.global\.(?:v4\.[fub]32|v2\.[fub]64)",
    "128-bit shared loads": r"ld\.shared\.(?:v4\.[fub]32|v2\.[fub]64)",
    "128-bit asynchronous copies": r"cp\.async\.c[ag]\.shared\.global \[[^\]]+\], \[[^\]]+\], 16",
    "TF32 tensor-core products": r"mma\.sync\.aligned\.m16n8k8[a-z0-9.]*tf32",
    "bfloat16 tensor-core products": r"mma\.sync\.aligned\.m16n8k16[a-z0-9.]*bf16",
    "matrix loads": r"ldmatrix\.sync\.aligned\.m8n8\.x4",
}

PRODUCT = r"product_(?:pool_)?kernel<"
EXPECTED = {
    "128-bit global loads": r"step_channels_kernel<[24], .*Normalise<(?:float|double)>",
    "128-bit global stores": r"product_kernel<ThreadShape|first_layer_kernel",
    "128-bit shared loads": rf"{PRODUCT}ThreadShape<float, \d+, \d+, (?:8, 4|4, 8),|first_layer_kernel",
    "128-bit asynchronous copies": PRODUCT,
    "TF32 tensor-core products": rf"{PRODUCT}TensorShape<float",
    "bfloat16 tensor-core products": rf"{PRODUCT}TensorShape<bfloat16",
    "matrix loads": rf"{PRODUCT}TensorShape<bfloat16|product_pool_kernel<TensorShape",
}
"""For each instruction a pattern: kernels whose names begin like this must have the instruction."""


@dataclass(frozen=True)
class Kernel:
    """What ptxas reports about one kernel on one architecture."""

    file: str
    arch: str
    name: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    occupancy: float
    lacks: tuple[str, ...]


def compile_file(path: Path, arch: str) -> tuple[list[Kernel], str]:
    """The kernels of a file and their PTX."""
    home = cuda_build.cuda_home()
    assert home is not None
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(home / "bin" / "nvcc"), "-std=c++17", *cuda_build.nvcc_flags(), f"-arch=sm_{arch}",
            "-Xptxas", "-v",
            "--keep", "--keep-dir", folder, "-c", str(path), "-o", f"{folder}/out.o",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        ptx = next(Path(folder).glob(f"{path.stem}*.ptx")).read_text()
    kernels = parse(done.stdout + done.stderr, ptx, path.stem, arch)
    print(f"compiled {path.name} for sm_{arch}: {len(kernels)} kernels", file=sys.stderr, flush=True)
    return kernels, ptx


def compile_all(architectures: list[str]) -> tuple[list[Kernel], str]:
    """The kernels of all files on all architectures, and their PTX."""
    files = [path for path in cuda_build.sources() if path.suffix == ".cu"]
    with ThreadPoolExecutor(compiler.parallel_jobs()) as pool:
        done = list(pool.map(compile_file, *zip(*product(files, architectures), strict=True)))
    return [kernel for found, _ in done for kernel in found], "".join(ptx for _, ptx in done)


def build_module() -> tuple[list[Kernel], str]:
    """Build the module for a GPU: its kernels and their PTX."""
    found = re.fullmatch(r"(\d+)\.(\d+)", cuda_build.architectures())
    if found is None or (arch := found[1] + found[2]) not in LIMITS:
        known = ", ".join(f"{int(name) / 10}" for name in LIMITS)
        raise SystemExit(f"TORCH_CUDA_ARCH_LIST: expected one of {known}, got {cuda_build.architectures()}")
    ninja = compiler.ninja()
    assert ninja is not None
    with tempfile.TemporaryDirectory() as folder:
        env = {
            **os.environ, "PATH": f"{ninja.parent}{os.pathsep}{os.environ['PATH']}",
            "NVCC_APPEND_FLAGS": f"-Xptxas -v --keep --keep-dir {folder}",
            "TORCH_NO_COMPILER_WRAPPER": "1",  # ccache would not give the kept files again
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "scripts.module_build", "nvcc", folder], cwd=ROOT, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stdout)
        codes = {path.stem: path.read_text() for path in sorted(Path(folder).glob("*.ptx"))}
    kernels = [kernel for file, ptx in codes.items() for kernel in parse(done.stdout, ptx, file, arch)]
    return kernels, "".join(codes.values())


def parse(log: str, ptx: str, file: str, arch: str) -> list[Kernel]:
    """The kernels of a file by the output of ptxas -v; ``ptx`` is their code."""
    codes = dict(re.findall(r"\.entry (\w+)\((.*?)(?=\.entry|\Z)", ptx, re.DOTALL))
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers([^\n]*)",
        log, re.DOTALL,
    )  # fmt: skip
    kernels = []
    for mangled, stores, loads, registers, rest in found:
        if mangled not in codes:  # a kernel of another file
            continue
        name = demangle(mangled)
        static = re.search(r"(\d+) bytes smem", rest)
        shared = (int(static.group(1)) if static else 0) + dynamic_shared(name)
        kernels.append(
            Kernel(file, arch, name, int(registers), int(stores) + int(loads), shared,
                   occupancy(int(registers), shared, arch, block_threads(name)),
                   lacking(name, codes[mangled]))
        )  # fmt: skip
    return kernels


def lacking(name: str, code: str) -> tuple[str, ...]:
    """The instructions that a kernel must have but lacks."""
    return tuple(
        what
        for what, kernels in EXPECTED.items()
        if re.match(kernels, name) and not re.search(PATTERNS[what], code)
    )


def demangle(name: str) -> str:
    """The kernel's C++ name, without its parameters and the namespaces, which are the same for all."""
    full = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    full = re.sub(r"minicnn::|cuda::|\(anonymous namespace\)::|\(?anonymous\)?|_GLOBAL__N__\w+::", "", full)
    full = re.sub(r"\((bool|int)\)", "", full.removeprefix("void "))
    full = full.replace("unsigned char", "u8").replace("long", "i64")
    depth = 0
    for i, character in enumerate(full):
        if character == "<":
            depth += 1
        elif character == ">":
            depth -= 1
        elif character == "(" and depth == 0:  # here the parameter list begins
            return full[:i]
    return full


class Shape(NamedTuple):
    """The tile of a product (csrc/cuda/core/shapes.h)."""

    rows: int
    columns: int
    threads: int
    stages: int


def shape_of(name: str) -> Shape | None:
    """The tile of a kernel, if it is a product."""
    if found := re.search(r"TensorShape<\w+, (\d+), (\d+), (\d+), (\d+),", name):
        rows, columns, warp_rows, warp_columns = map(int, found.groups())
        return Shape(rows, columns, rows // warp_rows * (columns // warp_columns) * 32, 4)
    if found := re.search(r"ThreadShape<\w+, (\d+), (\d+), (\d+), (\d+), \d+, (\d+)>", name):
        x, y, of_rows, of_columns, stages = map(int, found.groups())
        return Shape(y * of_rows, x * of_columns, x * y, stages)
    return None


def dynamic_shared(name: str) -> int:
    """Bytes of shared memory that a product asks for at launch (product.h and product_pool.cu in csrc)."""
    if (shape := shape_of(name)) is None:
        return 0
    slices = shape.stages * 64 * (shape.rows + shape.columns)
    if not name.startswith("product_pool_kernel"):
        return slices
    return max(slices, shape.rows * (shape.columns + 4) * (8 if "<double" in name else 4))


def block_threads(name: str) -> int:
    """How many threads a block of a kernel has."""
    shape = shape_of(name)
    return THREADS if shape is None else shape.threads


def occupancy(registers: int, shared: int, arch: str, of_block: int = THREADS) -> float:
    """The share of an SM's threads for which there are enough registers and shared memory."""
    threads, all_registers, kibibytes = LIMITS[arch]
    warps = of_block // 32
    of_warp = math.ceil(registers * 32 / 256) * 256  # they are given out in units of 256
    by_registers = all_registers // (of_warp * warps)
    by_shared = kibibytes * 1024 // (shared + RESERVED)
    blocks = min(threads // of_block, by_registers, by_shared)
    return blocks * of_block / threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", nargs="+", choices=sorted(LIMITS), default=sorted(LIMITS))
    parser.add_argument("--module", action="store_true", help="build the module, and report about that")
    parser.add_argument(
        "--check",
        action="store_true",
        help="fail if a kernel spills or lacks an instruction that it must have",
    )
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    reason = cuda_build.missing_for_build()
    if reason is not None:
        raise SystemExit(reason)
    kernels, code = build_module() if args.module else compile_all(args.arch)
    counts = {what: len(re.findall(pattern, code)) for what, pattern in PATTERNS.items()}
    print(f"compiled by nvcc {cuda_build.toolkit_version()}; nothing here was run on a GPU")
    print(f"{'file':24} sm  registers  shared  spills  occupancy  kernel")
    for k in kernels:
        numbers = f"{k.registers:9}  {k.shared_bytes:6}  {k.spill_bytes:6}  {k.occupancy:9.0%}"
        print(f"{k.file:24} {k.arch}  {numbers}  {k.name}")
    for what, count in counts.items():
        print(f"{what}: {count}")
    if args.json:
        args.json.write_text(
            json.dumps({"kernels": [asdict(k) for k in kernels], "instructions": counts}, indent=1)
        )
    spilling = [f"{k.name} (sm_{k.arch})" for k in kernels if k.spill_bytes]
    missing = [f"{what} in {k.name} (sm_{k.arch})" for k in kernels for what in k.lacks]
    if args.check and (spilling or missing or not all(counts.values())):
        raise SystemExit(f"spills: {spilling or 'none'}; missing: {missing or 'nothing'}; {counts}")


if __name__ == "__main__":
    main()
