"""Times the products of convolution on a GPU in every configuration, beside cuDNN's.

For each pass, precision and shape it prints the fastest configurations, the one that the router chooses,
and cuDNN's time.  Variants of the kernels, made by replacing a text of the sources, are timed beside them.

    python scripts/gpu_products.py [--json FILE] [--variants NAME ...]

Needs nvcc and a GPU; it takes about three minutes on 16 cores, nearly all of them for building.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from minicnn.backends import cuda_build

ROOT = Path(__file__).resolve().parent.parent
PASSES = ("forward", "dx", "dw")
TYPES = {
    "float32": ("float", "Thread"),
    "tf32": ("float", "Tensor"),
    "bfloat16": ("minicnn::bfloat16", "Tensor"),
}
"""Precision -> the C++ type, and whether threads or tensor cores multiply."""
VARIANTS: dict[str, list[tuple[str, str, str]]] = {
    "as it is": [],
    "copies through L1": [
        ("tiles.h", "__pipeline_memcpy_async(", "copy_through_l1("),
        (
            "tiles.h",
            "// The slices of L rows of an operand.",
            "__device__ __forceinline__ void copy_through_l1(void* to, const void* from, int,\n"
            "                                                int zeros) {\n"
            '    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(unsigned('
            '__cvta_generic_to_shared(to))), "l"(from), "r"(16 - zeros) : "memory");\n}\n',
        ),
    ],
    "slices of 128 bytes": [
        ("tiles.h", "slice_bytes = 64", "slice_bytes = 128"),
        ("shapes.h", "stages = 4", "stages = 3"),
    ],
    "factors of TF32 not rounded": [
        ("tensor_sums.h", "bits = round_to_tf32(bits);", "bits = bits + 0;"),
    ],
    "4 k at once with 64 sums": [
        ("thread_sums.h", "TM * TN < 64 ? V : V / 2", "V"),
    ],
}
"""Name -> what is replaced: file, text, new text."""
ONLY = {"factors of TF32 not rounded": "tf32", "4 k at once with 64 sums": "float32"}
"""The variants that concern one precision."""


def cuda_home() -> Path:
    """The folder of the CUDA toolkit."""
    home = cuda_build.cuda_home()
    if home is None:
        raise SystemExit("no nvcc: install NVIDIA's CUDA toolkit, or name its folder in CUDA_HOME")
    return Path(home)


def build(folder: Path, variant: str, number: int, precision: str) -> Path:
    """The program of a pass in a precision."""
    home = cuda_home()
    program = folder / f"{variant}-{number}-{precision}".replace(" ", "-")
    number_type, kind = TYPES[precision]
    command = [
        str(home / "bin" / "nvcc"), "-std=c++17", "-O3", "-arch=native", f"-DPASS={number}",
        f"-DTYPE={number_type}", f"-DKIND={kind}", f"-I{folder / variant}",
        str(ROOT / "scripts" / "gpu_products.cu"), "-o", str(program),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return program


def sources(folder: Path, variant: str) -> None:
    """A copy of csrc with the texts of a variant replaced."""
    shutil.copytree(ROOT / "csrc", folder / variant)
    for file, text, new in VARIANTS[variant]:
        path = folder / variant / "cuda" / "core" / file
        old = path.read_text()
        assert text in old, f"{file} lacks {text!r}"
        path.write_text(old.replace(text, new, 1))


def cudnn(problem: str, number: int, precision: str) -> float:
    """Milliseconds of PyTorch's convolution, channels-last."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    words = problem.replace(",", "").split()  # C to F KxK HxH batch N
    c, f, k, h, n = (int(words[i].split("x")[0]) for i in (0, 2, 3, 4, 6))
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    last = torch.channels_last
    x = torch.randn(n, c, h, h, device="cuda", dtype=dtype).to(memory_format=last)
    w = torch.randn(f, c, k, k, device="cuda", dtype=dtype).to(memory_format=last)
    dy = torch.randn(n, f, h, h, device="cuda", dtype=dtype).to(memory_format=last)
    pair = [k // 2, k // 2]

    def call() -> Any:
        if number == 0:
            return torch.nn.functional.conv2d(x, w, padding=k // 2)
        wanted = [number == 1, number == 2, False]
        return torch.ops.aten.convolution_backward(
            dy, x, w, None, [1, 1], pair, [1, 1], False, [0, 0], 1, wanted
        )

    for _ in range(3):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            call()
    times: list[float] = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 10)
    return sorted(times)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write all times to this file")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        for variant in args.variants:
            sources(folder, variant)
        jobs = [
            (variant, number, precision)
            for variant in args.variants
            for number in range(len(PASSES))
            for precision in TYPES
            if ONLY.get(variant, precision) == precision
        ]
        programs = list(pool.map(lambda job: build(folder, *job), jobs))
        for (variant, number, precision), program in zip(jobs, programs, strict=True):
            done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{variant}, {PASSES[number]}, {precision} failed: {done.stdout[-300:]}{done.stderr}")
            for line in done.stdout.splitlines():
                rows.append(
                    {"variant": variant, "number": number, "precision": precision, **json.loads(line)}
                )
    for number, precision in ((n, p) for n in range(len(PASSES)) for p in TYPES):
        for problem in dict.fromkeys(row["problem"] for row in rows):
            found = [
                row
                for row in rows
                if (row["number"], row["precision"], row["problem"]) == (number, precision, problem)
            ]
            if not found:
                continue
            peer = cudnn(problem, number, precision)
            flops = found[0]["tflops"] * found[0]["ms"]
            print(f"\n{PASSES[number]}, {precision}, {problem}; the plan is {found[0]['plan']}")
            print(f"  {peer * 1e3:8.1f} us {flops / peer:6.1f} TFLOP/s  cuDNN")
            for variant in args.variants:
                of_it = sorted((r for r in found if r["variant"] == variant), key=lambda r: r["ms"])
                for row in [*of_it[:3], *(r for r in of_it[3:] if r["chosen"])]:
                    mark = ", chosen" if row["chosen"] else ""
                    print(
                        f"  {row['ms'] * 1e3:8.1f} us {row['tflops']:6.1f} TFLOP/s  {variant}: "
                        f"{row['tile']} x {row['parts']}{mark}"
                    )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
