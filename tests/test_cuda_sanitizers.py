"""The shipped kernels under sanitizers, emulated: clean as they are, reported once a barrier is taken out.

The kernels are built without torch, with a driver that launches each on small arrays.  Double has the same
text as float, so only float is built.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")

DRIVER = """
#include <cstdio>
#include <vector>
#include "cuda/conv2d/first_layer.h"
#include "cuda/core/elementwise.h"
#include "cuda/core/tf32.h"
#include "cuda/device_step.h"
#include "ops.h"
namespace minicnn::cuda {
cudaStream_t current_stream() { return nullptr; }
void* allocate_scratch(std::size_t bytes) { return std::malloc(bytes); }
void free_scratch(void* data) { std::free(data); }
}
using namespace minicnn;
struct Numbers : std::vector<float> {
    explicit Numbers(std::size_t count) : std::vector<float>(count) {
        for (std::size_t i = 0; i < count; ++i) (*this)[i] = float(int(i * 7 %% 13) - 6);
    }
    operator float*() { return data(); }
};
int main() {
    %s
    std::puts("done");
}
"""

CONV = """
    const ConvParams p{1, 8, 6, 6, 20, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1};
    Numbers x(8 * 36), w(20 * 72), b(20), y(20 * 36), dx(8 * 36), dw(20 * 72), db(20);
"""
FIRST_LAYER = """
    const ConvParams p{1, 3, 6, 6, 20, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1};
    Numbers x(3 * 36), w(20 * 27), b(20), y(20 * 36), dw(20 * 27), db(20);
"""
POOL = "const PoolParams pool{2, 2, 3, 3, 2, 2, 0, 0, 1, 1, 0, 0}; std::vector<std::uint8_t> won(20 * 9);"

CALLS = {
    "flatten": "Numbers x(5 * 40), y(5 * 40); flatten_forward<float>(x, y, {1, 5, 5, 8});",
    "softmax_cross_entropy": """
        Numbers x(70 * 5), p(70 * 5), loss(1); std::vector<std::int64_t> labels(70);
        softmax_cross_entropy_forward<float>(x, {labels.data(), nullptr, nullptr, 0.1}, loss, p, 70, 5);
        Tally tally{};
        cross_entropy_gradient<float>(x, {labels.data(), nullptr, nullptr, 0.1}, p, &tally, 70, 5);""",
    "optimizers": """
        Numbers a(5000), b(30);
        const Parameter<float> list[] = {{a, nullptr, nullptr, nullptr, 5000},
                                         {b, nullptr, nullptr, nullptr, 30}};
        if (sum_of_squares<float>(list, 2) <= 0) return 1;
        clip_norm<float>(list, 2, 1.0);""",
    "batch_norm2d": """
        Numbers x(4 * 90), y(4 * 90), w(4), b(4), mean(4), invstd(4), dx(4 * 90), dw(4), db(4);
        const ImageShape s{10, 4, 3, 3};
        batch_norm2d_forward<float>(x, w, b, nullptr, nullptr, nullptr, y, mean, invstd, s,
                                    {0.1, 1e-5, true}, true);
        batch_norm2d_backward<float>(x, y, x, w, mean, invstd, dx, nullptr, dw, db, s, true);""",
    "conv2d": CONV + "conv2d_forward<float>(x, w, b, y, p, true);",
    "conv2d_backward": CONV + "conv2d_backward<float>(y, y, x, w, dx, dw, db, p);",
    "conv2d_tf32": CONV + """
        cuda::allow_tf32 = true;
        conv2d_forward<float>(x, w, b, y, p, true);
        cuda::allow_tf32 = false;""",
    "conv2d_tf32_pool": CONV + POOL + """
        cuda::allow_tf32 = true;
        conv2d_pool_forward<float>(x, w, b, y, won.data(), p, pool, true);
        conv2d_pool_backward<float>(y, won.data(), x, w, dx, dw, db, p, pool);
        cuda::allow_tf32 = false;""",
    "conv2d_pool": CONV + POOL + "conv2d_pool_forward<float>(x, w, b, y, won.data(), p, pool, true);",
    "conv2d_pool_backward": CONV + POOL + """
        conv2d_pool_backward<float>(y, won.data(), x, w, dx, dw, db, p, pool);""",
    "first_layer": FIRST_LAYER + "conv2d_forward<float>(x, w, b, y, p, true);",
    "first_layer_backward": FIRST_LAYER + "conv2d_backward<float>(y, y, x, w, nullptr, dw, db, p);",
    "first_layer_weight": FIRST_LAYER + """
        cuda::first_layer_weight_gradient<float>(y, {y, nullptr, {}}, x, dw, p);""",
    "first_layer_pool": FIRST_LAYER + POOL + """
        conv2d_pool_forward<float>(x, w, b, y, won.data(), p, pool, true);
        conv2d_pool_backward<float>(y, won.data(), x, w, nullptr, dw, db, p, pool);""",
}  # fmt: skip

EVERYTHING = "".join(f"{{ {call} }}\n" for call in CALLS.values())
TENSOR = tuple(f"tensor_{name}" for name in ("arrays", "forward", "input", "weight", "pool"))
KERNELS = (
    "flatten", "softmax_cross_entropy", "optimizers", "batch_norm2d", "batch_norm2d_pool", "max_pool2d",
    "conv2d", "conv2d_input", "conv2d_weight", "conv2d_pool", "first_layer", "first_layer_weight",
    "conv2d_input_fused", *TENSOR,
)  # fmt: skip


def build(
    folder: Path, calls: str, kernels: tuple[str, ...], sanitizer: str, *,
    planted: tuple[str, str, str] | None = None,
) -> Path:  # fmt: skip
    """A program that makes the calls, from a copy of csrc, float only, with one text replaced."""
    copy = folder / "csrc"
    shutil.copytree(CSRC, copy)
    if planted is not None:
        (path,) = (copy / "cuda").rglob(planted[0])
        text = path.read_text()
        assert text.count(planted[1]) == 1
        path.write_text(text.replace(planted[1], planted[2]))
    driver = folder / "driver.cu"
    driver.write_text(DRIVER % calls)
    files = [
        path
        for path in sorted((copy / "cuda").rglob("*.cu"))
        if path.stem.removesuffix("_fused") in kernels
    ]
    for path in files:
        text = re.sub(
            r"^(INSTANTIATE\w*\(double|template .*\bdouble\b).*?;$", "", path.read_text(), flags=re.M
        )
        path.write_text(text)
    program = folder / "program"
    assert COMPILER is not None
    built = subprocess.run(
        [COMPILER, "-std=c++20", "-O1", "-g1", "-Wno-unknown-pragmas", f"-fsanitize={sanitizer}",
         "-x", "c++",
         f"-I{copy}/cuda_emulation", f"-I{copy}", str(driver), *map(str, files), "-o", str(program),
         "-ffunction-sections", "-Wl,--gc-sections"],  # what is not called need not be there
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-4000:]
    return program


def output(program: Path) -> str:
    """What the program prints, on both streams."""
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_thread_sanitizer_finds_nothing(tmp_path: Path) -> None:
    assert output(build(tmp_path, EVERYTHING, KERNELS, "thread")) == "done\n"


def test_address_and_undefined_behaviour_sanitizers_find_nothing(tmp_path: Path) -> None:
    printed = output(build(tmp_path, EVERYTHING, KERNELS, "address,undefined"))
    assert printed.startswith("done\n")
    assert "ERROR: AddressSanitizer" not in printed
    assert "runtime error" not in printed


CALLED = {
    "conv2d": ("conv2d", "first_layer", *TENSOR),
    "conv2d_tf32": ("conv2d", "first_layer", *TENSOR),
    "conv2d_tf32_pool": (
        "conv2d_pool",
        "conv2d_weight",
        "conv2d_input",
        "conv2d_input_fused",
        "first_layer",
        "first_layer_weight",
        *TENSOR,
    ),
    "conv2d_pool": ("conv2d_pool", "first_layer", *TENSOR),
    "first_layer": ("conv2d", "first_layer", *TENSOR),
}
"""The files of a call that is not made by the file of its name alone."""


class Plant(NamedTuple):
    """A barrier taken out of a shipped kernel."""

    call: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.call}-{self.file}"


BARRIER = "__syncthreads();"
PLANTS = [
    Plant("flatten", "flatten.cu", BARRIER),
    Plant("softmax_cross_entropy", "softmax_cross_entropy.cu", BARRIER),
    Plant("optimizers", "reduce.h", "= value;\n    __syncthreads();"),
    Plant("softmax_cross_entropy", "reduce.h", "__syncthreads();  // the previous call's readers are done"),
    Plant("first_layer_weight", "reduce.h", "        __syncthreads();\n        if (threadIdx.y < half)"),
    Plant("batch_norm2d", "channels.h", "__syncthreads();  // every warp has stored its sums"),
    Plant("batch_norm2d", "channels.h", "__syncthreads();  // every channel's numbers are known"),
    Plant("first_layer_weight", "first_layer_weight.cu", BARRIER),
    Plant("first_layer", "first_layer.cu", BARRIER),
    Plant("conv2d", "gemm.h", "__syncthreads();  // this slice is read, the next has come"),
    Plant("conv2d_tf32", "tensor_cores.h", BARRIER),
    Plant("conv2d_tf32_pool", "tensor_pool.cu", "__syncthreads();  // the map is whole"),
    Plant("conv2d_pool", "conv2d_pool.cu", BARRIER),
]


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_thread_sanitizer_finds_a_barrier_taken_out(tmp_path: Path, plant: Plant) -> None:
    kernels = CALLED.get(plant.call, (plant.call,))
    without = (plant.file, plant.text, plant.text.replace(BARRIER, ""))
    program = build(tmp_path, CALLS[plant.call], kernels, "thread", planted=without)
    assert "WARNING: ThreadSanitizer: data race" in output(program)


def test_address_sanitizer_finds_a_shared_array_that_is_too_small(tmp_path: Path) -> None:
    planted = (
        "flatten.cu",
        "MINICNN_SHARED(T, tile, tile_side * pitch)",
        "MINICNN_SHARED(T, tile, tile_side)",
    )
    program = build(tmp_path, CALLS["flatten"], ("flatten",), "address,undefined", planted=planted)
    assert "ERROR: AddressSanitizer" in output(program)
