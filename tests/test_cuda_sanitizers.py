"""The shipped kernels under sanitizers, emulated: clean as they are, reported once a barrier is taken out.

The kernels are built without torch, with a driver that launches each on small arrays.  Double has the same
text as float, so only float is built.  All tests share the object files of the kernels as they are; a test
that plants a mistake compiles one file again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from minicnn.backends.compiler import parallel_jobs

CSRC = Path(__file__).resolve().parent.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.xdist_group("sanitizers"),  # in one process, which has the object files
]

DRIVER = """
#include <cstdio>
#include <cstring>
#include <vector>
#include "cuda/conv2d/first_layer.h"
#include "cuda/core/elementwise.h"
#include "cuda/core/tf32.h"
#include "cuda/device_step.h"
#include "ops.h"
#include "without_torch.h"
using namespace minicnn;
struct Numbers : std::vector<float> {
    explicit Numbers(std::size_t count) : std::vector<float>(count) {
        for (std::size_t i = 0; i < count; ++i) (*this)[i] = float(int(i * 7 % 13) - 6);
    }
    operator float*() { return data(); }
};
// Makes the call that is named, or all.
int main(int argc, char** argv) {
    const auto chosen = [&](const char* name) { return argc < 2 || std::strcmp(name, argv[1]) == 0; };
    CALLS
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
    "conv2d_bias": CONV + "conv2d_backward<float>(y, y, x, w, nullptr, nullptr, db, p);",
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
    "first_layer_pool": FIRST_LAYER + POOL + """
        conv2d_pool_forward<float>(x, w, b, y, won.data(), p, pool, true);
        conv2d_pool_backward<float>(y, won.data(), x, w, nullptr, dw, db, p, pool);""",
}  # fmt: skip

PRODUCTS = tuple(f"product_{name}" for name in ("input", "weight", "forward", "pool", "arrays"))
KERNELS = (
    *PRODUCTS, "conv2d", "conv2d_pool", "conv2d_gradients", "first_layer", "softmax_cross_entropy",
    "optimizers", "batch_norm2d", "batch_norm2d_pool", "max_pool2d", "flatten",
)  # fmt: skip
"""The files that are built; those that take longest come first."""

FLAGS = {
    "thread": ["-fsanitize=thread"],
    # AddressSanitizer finds what null and object-size would; tests/csrc/Makefile says why calls are taken.
    "address": ["-fsanitize=address,undefined", "-fno-sanitize=null,object-size",
                "--param", "asan-instrumentation-with-call-threshold=50"],
}  # fmt: skip


class Planted(NamedTuple):
    """A text of a header or kernel that is replaced, and the kernel that is compiled with it."""

    kernel: str
    file: str
    text: str
    replacement: str


class Workshop:
    """Builds the driver with every kernel, float only.  What has no planted mistake is compiled once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = self.copy("sources")

    def copy(self, name: str) -> Path:
        """A copy of csrc without the kernels for double, and with the driver."""
        copy = self.folder / name
        shutil.copytree(CSRC, copy)
        for path in (copy / "cuda").rglob("*.cu"):
            text = re.sub(
                r"^(INSTANTIATE\w*\(double|template .*\bdouble\b).*?;$", "", path.read_text(), flags=re.M
            )
            path.write_text(text)
        calls = [f'if (chosen("{name}")) {{ {call} }}' for name, call in CALLS.items()]
        (copy / "cuda" / "driver.cu").write_text(DRIVER.replace("CALLS", "\n".join(calls)))
        return copy

    def compile(self, sources: Path, kernel: str, sanitizer: str) -> Path:
        """The object file of a kernel."""
        target = sources / f"{kernel}.{sanitizer}.o"
        if not target.exists():
            (source,) = (sources / "cuda").rglob(f"{kernel}.cu")
            includes = f"-I{sources}/cuda_emulation", f"-I{sources}"
            run_compiler(sanitizer, "-x", "c++", *includes, "-c", source, "-o", target)
        return target

    def program(self, sanitizer: str, planted: Planted | None = None) -> Path:
        """The program that makes the calls."""
        names = [name for name in ("driver", *KERNELS) if planted is None or name != planted.kernel]
        with ThreadPoolExecutor(parallel_jobs()) as pool:
            objects = list(pool.map(lambda name: self.compile(self.sources, name, sanitizer), names))
        program = self.folder / f"program-{sanitizer}"
        if planted is not None:
            copy = self.copy(f"planted-{len(list(self.folder.iterdir()))}")
            (path,) = (copy / "cuda").rglob(planted.file)
            text = path.read_text()
            assert text.count(planted.text) == 1
            path.write_text(text.replace(planted.text, planted.replacement))
            # It comes before the other kernels: of templates that several files have, the linker takes the
            # first.  What is the emulation's own comes from the driver, as in the program without a plant.
            objects.insert(1, self.compile(copy, planted.kernel, sanitizer))
            program = copy / "program"
        if not program.exists():
            run_compiler(sanitizer, *objects, "-o", program)
        return program


def run_compiler(sanitizer: str, *arguments: str | Path) -> None:
    """Compile or link."""
    assert COMPILER is not None
    done = subprocess.run(
        [COMPILER, "-std=c++20", "-O1", "-g1", "-Wno-unknown-pragmas", *FLAGS[sanitizer],
         "-ffunction-sections", "-Wl,--gc-sections",  # what is not called need not be there
         *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def output(program: Path, *arguments: str) -> str:
    """What the program prints, on both streams."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where everything is built."""
    return Workshop(tmp_path_factory.mktemp("kernels"))


def test_thread_sanitizer_finds_nothing(workshop: Workshop) -> None:
    assert output(workshop.program("thread")) == "done\n"


def test_address_and_undefined_behaviour_sanitizers_find_nothing(workshop: Workshop) -> None:
    printed = output(workshop.program("address"))
    assert printed.startswith("done\n")
    assert "ERROR: AddressSanitizer" not in printed
    assert "runtime error" not in printed


class Plant(NamedTuple):
    """A barrier taken out of a shipped kernel."""

    call: str
    file: str
    text: str
    kernel: str = ""
    """The file that is compiled with it, if the call has another name."""

    def __str__(self) -> str:
        return f"{self.call}-{self.file}"


BARRIER = "__syncthreads();"
PLANTS = [
    Plant("flatten", "flatten.cu", BARRIER),
    Plant("softmax_cross_entropy", "softmax_cross_entropy.cu", BARRIER),
    Plant("optimizers", "reduce.h", "= value;\n    __syncthreads();"),
    Plant("softmax_cross_entropy", "reduce.h", "__syncthreads();  // the previous call's readers are done"),
    Plant(
        "conv2d_bias",
        "reduce.h",
        "        __syncthreads();\n        if (threadIdx.y < half)",
        "conv2d_gradients",
    ),
    Plant("batch_norm2d", "channels.h", "__syncthreads();  // every warp has stored its sums"),
    Plant("batch_norm2d", "channels.h", "__syncthreads();  // every channel's numbers are known"),
    Plant("first_layer", "first_layer.cu", BARRIER),
    Plant("conv2d", "product.h", BARRIER, "product_forward"),
    Plant("conv2d_tf32", "product.h", BARRIER, "product_forward"),
    Plant("conv2d_tf32_pool", "product_pool.cu", "__syncthreads();  // the map is whole", "product_pool"),
    Plant("conv2d_pool", "product_pool.cu", "__syncthreads();  // the last slice is read", "product_pool"),
]


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_thread_sanitizer_finds_a_barrier_taken_out(workshop: Workshop, plant: Plant) -> None:
    without = plant.text.replace(BARRIER, "")
    planted = Planted(plant.kernel or plant.call, plant.file, plant.text, without)
    assert "WARNING: ThreadSanitizer: data race" in output(workshop.program("thread", planted), plant.call)


def test_address_sanitizer_finds_a_shared_array_that_is_too_small(workshop: Workshop) -> None:
    whole, too_small = (f"MINICNN_SHARED(T, tile, {size})" for size in ("tile_side * pitch", "tile_side"))
    planted = Planted("flatten", "flatten.cu", whole, too_small)
    assert "ERROR: AddressSanitizer" in output(workshop.program("address", planted), "flatten")
