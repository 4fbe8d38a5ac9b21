"""The emulation that runs .cu files on the CPU: what it does, and the mistakes that it reports."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")

MAIN = """
#include <cstdio>
#include <cuda_pipeline.h>
#include <mma.h>
#include "without_torch.h"
using minicnn::cuda::launch;
%s
int main() {
    static float out[1024];
    for (float& x : out) x = -1;
    try {
        launch(kernel, dim3(BLOCKS), dim3(THREADS), 64 * sizeof(float), nullptr, &out[0]);
    } catch (const std::exception& error) {
        std::printf("error: %%s\\n", error.what());
        return 0;
    }
    for (int i = 0; i < BLOCKS * THREADS; ++i) std::printf("%%g ", double(out[i]));
}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of this file are built, once for each kernel."""
    return tmp_path_factory.mktemp("programs")


def run(
    folder: Path, kernel: str, *, threads: int = 64, blocks: int = 1, order: str = "", flags: str = ""
) -> str:
    """What a program prints that launches `kernel` once: the output array, or the error."""
    text = f"#define THREADS {threads}\n#define BLOCKS {blocks}\n{MAIN % kernel}"
    program = folder / f"{zlib.crc32((text + flags).encode()):08x}"
    if not program.exists():
        source = program.with_suffix(".cu")
        source.write_text(text)
        assert COMPILER is not None
        built = subprocess.run(
            [COMPILER, "-std=c++20", "-g1", "-x", "c++", f"-I{ROOT}/csrc/cuda_emulation", f"-I{ROOT}/csrc",
             *flags.split(), str(source), "-o", str(program)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert built.returncode == 0, built.stderr
    environment = {**os.environ, "MINICNN_CUDA_ORDER": order or "forward"}
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, env=environment)
    return done.stdout + done.stderr


ORDERS = ["forward", "reversed", "7", "8"]

ROTATE = """
__global__ void kernel(float* out) {
    MINICNN_SHARED(float, values, THREADS);
    const int i = threadIdx.x;
    values[i] = float(i + 100 * blockIdx.x);
    __syncthreads();
    out[blockIdx.x * THREADS + i] = values[(i + 1) % THREADS];
}
"""


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_order_shared_memory(programs: Path, order: str) -> None:
    expected = [(i + 1) % 64 + 100 * block for block in range(2) for i in range(64)]
    assert [float(x) for x in run(programs, ROTATE, blocks=2, order=order).split()] == expected


def test_a_missing_barrier_shows_as_nan(programs: Path) -> None:
    assert "nan" in run(programs, ROTATE.replace("__syncthreads();", ""))


def test_dynamic_shared_memory_is_poisoned_before_each_block(programs: Path) -> None:
    kernel = """
    __global__ void kernel(float* out) {
        MINICNN_DYNAMIC_SHARED(float, values);
        out[blockIdx.x * THREADS + threadIdx.x] = values[threadIdx.x];
        values[threadIdx.x] = 1;
    }"""
    assert run(programs, kernel, blocks=3).replace("-", "").split() == ["nan"] * 192


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_votes_and_atomics(programs: Path, order: str) -> None:
    kernel = """
    __global__ void kernel(float* out) {
        MINICNN_SHARED(unsigned, count, 1);
        if (threadIdx.x == 0) *count = 0;
        __syncthreads();
        float sum = float(threadIdx.x);
        for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, lanes);
        const unsigned odd = __ballot_sync(0xFFFFFFFFu, threadIdx.x % 2);
        const float next = __shfl_down_sync(0xFFFFFFFFu, float(threadIdx.x), 1);
        atomicAdd(count, 1u);
        __syncthreads();
        out[threadIdx.x] = sum + (odd == 0xAAAAAAAAu ? 0.5f : 0.0f) + 1000 * next + 100000 * float(*count);
    }"""
    values = [float(x) for x in run(programs, kernel, order=order).split()]
    warps = [496.0] * 32 + [1520.0] * 32
    following = [i if i % 32 == 31 else i + 1 for i in range(64)]
    expected = [total + 0.5 + 1000 * after + 6400000 for total, after in zip(warps, following, strict=True)]
    assert values == pytest.approx(expected, rel=1e-5)


def test_asynchronous_copies_are_done_at_the_wait(programs: Path) -> None:
    kernel = """
    __global__ void kernel(float* out) {
        MINICNN_SHARED(float, tile, 2);
        MINICNN_SHARED(float, seen, THREADS);
        const float source[2] = {5, 7};
        if (threadIdx.x == 0) {
            __pipeline_memcpy_async(tile, source, 4);
            __pipeline_commit();
            __pipeline_memcpy_async(tile + 1, source + 1, 4, 4);  // zeros instead
            __pipeline_commit();
            seen[0] = tile[0];
            __pipeline_wait_prior(1);
            seen[1] = tile[0];
            seen[2] = tile[1];
            __pipeline_wait_prior(0);
            seen[3] = tile[1];
        }
        __syncthreads();
        out[threadIdx.x] = seen[threadIdx.x];
    }"""
    assert run(programs, kernel, threads=4).replace("-", "").split() == ["nan", "5", "nan", "0"]


TENSOR_CORES = """
#include "cuda/core/ptx.h"
using namespace minicnn;
using namespace minicnn::cuda;

// Where number i of lane `lane` lies, by the PTX manual: "Matrix Fragments for mma.m16n8k8" (.tf32) and
// "Matrix Fragments for mma.m16n8k16" (.bf16).
struct Place { int row, column; };
struct Tf32 {
    using T = float;
    static constexpr int depth = 8, in_a = 4, in_b = 2;
    static Place a(int lane, int i) {
        return {i == 0 || i == 2 ? lane / 4 : lane / 4 + 8, i < 2 ? lane % 4 : lane % 4 + 4};
    }
    static Place b(int lane, int i) { return {i == 0 ? lane % 4 : lane % 4 + 4, lane / 4}; }
};
struct Bfloat16 {
    using T = bfloat16;
    static constexpr int depth = 16, in_a = 8, in_b = 4;
    static Place a(int lane, int i) {
        return {i < 2 || (4 <= i && i < 6) ? lane / 4 : lane / 4 + 8,
                lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8)};
    }
    static Place b(int lane, int i) { return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4}; }
};
int lane() { return int(threadIdx.x) % 32; }
Place of_sum(int lane, int i) { return {i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + (i & 1)}; }
int left(int row, int k) { return (row * 5 + k * 3) % 11 - 5; }
int right(int k, int column) { return (k * 7 + column * 2) % 13 - 6; }

// How many of the lane's sums are wrong if the registers are filled and read as the manual says.
template <typename Format>
float wrong() {
    using T = typename Format::T;
    T a[Format::in_a], b[Format::in_b];
    for (int i = 0; i < Format::in_a; ++i) {
        const Place at = Format::a(lane(), i);
        a[i] = minicnn::narrow<T>(float(left(at.row, at.column)));
    }
    for (int i = 0; i < Format::in_b; ++i) {
        const Place at = Format::b(lane(), i);
        b[i] = minicnn::narrow<T>(float(right(at.row, at.column)));
    }
    float sum[4] = {1, 2, 3, 4};
    unsigned of_a[4], of_b[2];
    std::memcpy(of_a, a, sizeof a);
    std::memcpy(of_b, b, sizeof b);
    if (sizeof(T) == 2) multiply_bfloat16(sum, of_a, of_b);
    else multiply_tf32(sum, of_a, of_b);
    float count = 0;
    for (int i = 0; i < 4; ++i) {
        const Place at = of_sum(lane(), i);
        float expected = float(i + 1);
        for (int k = 0; k < Format::depth; ++k) expected += float(left(at.row, k) * right(k, at.column));
        count += sum[i] != expected;
    }
    return count;
}
"""


@pytest.mark.parametrize("precision", ["Tf32", "Bfloat16"])
def test_fragments_lie_in_the_lanes_as_the_manual_says(programs: Path, precision: str) -> None:
    kernel = (
        TENSOR_CORES + f"__global__ void kernel(float* out) {{ out[threadIdx.x] = wrong<{precision}>(); }}"
    )
    assert run(programs, kernel, threads=64).split() == ["0"] * 64


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded_as_the_manual_says(programs: Path, transposed: bool) -> None:
    """Lane l gets, of each matrix, the elements 2 * (l % 4) and the next one of row l / 4."""
    kernel = (
        TENSOR_CORES
        + """
    __global__ void kernel(float* out) {
        MINICNN_SHARED(std::uint16_t, matrices, 4 * 64);
        const int lane = threadIdx.x;
        for (int i = lane; i < 256; i += 32) matrices[i] = std::uint16_t(i);
        __syncthreads();
        unsigned got[4];
        LOAD(got, matrices + (lane ^ 5) * 8);
        float wrong = 0;
        for (int i = 0; i < 4; ++i) {
            for (int k = 0; k < 2; ++k) {
                int row = lane / 4, column = lane % 4 * 2 + k;
                if (TRANSPOSED) std::swap(row, column);
                // the row's address came from lane 8 * i + row
                wrong += (got[i] >> 16 * k & 0xFFFF) != unsigned(((8 * i + row) ^ 5) * 8 + column);
            }
        }
        out[lane] = wrong;
    }"""
    )
    load = "load_matrices_transposed" if transposed else "load_matrices"
    kernel = kernel.replace("LOAD", load).replace("TRANSPOSED", str(int(transposed)))
    assert run(programs, kernel, threads=32).split() == ["0"] * 32


def test_tf32_is_rounded_and_keeps_what_is_no_number(programs: Path) -> None:
    kernel = (
        TENSOR_CORES
        + """
    __global__ void kernel(float* out) {
        const unsigned given[] = {0x3F801000, 0x3F800FFF, 0xBF801000, 0x7F7FFFFF, 0x7F800000, 0x7FFFFFFF};
        const unsigned rounded = round_to_tf32(given[threadIdx.x]);
        std::memcpy(out + threadIdx.x, &rounded, sizeof rounded);
    }"""
    )
    got = run(programs, kernel, threads=6).split()
    assert got == ["1.00098", "1", "-1.00098", "inf", "inf", "nan"]


REPORTED = {
    "divergent barriers": "if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();",
    "32 threads left while others wait": "if (threadIdx.x < 32) __syncthreads();",
    "the calling lane is not in it": "__shfl_xor_sync(0x0000FFFFu, 1.0f, 1);",
    "it names a lane that has left": "if (threadIdx.x % 32 == 3) return;\n__syncwarp();",
    "it reads a lane that is not in the mask": (
        "if (threadIdx.x % 32 < 16) __shfl_sync(0x0000FFFFu, 1.0f, 20);"
    ),
    "the lanes do not agree on it": "__any_sync(threadIdx.x % 2 ? 0xFFFFFFFFu : 0x55555555u, true);",
    "lanes of a warp wait for lanes that do not come": (
        "if (threadIdx.x % 2) __syncthreads(); else __syncwarp();"
    ),
}


@pytest.mark.parametrize("order", ["forward", "reversed"])
@pytest.mark.parametrize("report", REPORTED)
def test_mistakes_are_reported(programs: Path, report: str, order: str) -> None:
    kernel = "__global__ void kernel(float* out) { out[0] = 0;\n" + REPORTED[report] + "\n}"
    printed = run(programs, kernel, order=order)
    assert printed.startswith("error: CUDA emulation: ")
    assert report in printed


def test_a_mask_beyond_the_block_is_reported(programs: Path) -> None:
    kernel = "__global__ void kernel(float* out) { out[0] = 0; __syncwarp(); }"
    assert "names lanes that the block does not have" in run(programs, kernel, threads=16)


@pytest.mark.parametrize(
    "memory", ["MINICNN_SHARED(float, values, 64)", "MINICNN_DYNAMIC_SHARED(float, values)"]
)
def test_address_sanitizer_finds_a_shared_memory_overrun(programs: Path, memory: str) -> None:
    kernel = "__global__ void kernel(float* out) { %s; values[threadIdx.x + 1] = 1; out[0] = 1; }"
    printed = run(programs, kernel % memory, flags="-fsanitize=address")
    assert "AddressSanitizer" in printed
    fine = run(programs, kernel.replace("+ 1", "") % memory, flags="-fsanitize=address")
    assert "AddressSanitizer" not in fine


def test_thread_sanitizer_finds_a_missing_barrier_in_whatever_order(programs: Path) -> None:
    assert "data race" not in run(programs, ROTATE, flags="-fsanitize=thread")
    assert "data race" in run(programs, ROTATE.replace("__syncthreads();", ""), flags="-fsanitize=thread")


def test_thread_sanitizer_takes_no_declaration_for_a_barrier(programs: Path) -> None:
    """The first thread to declare a shared array makes it; what it wrote before stays unordered."""
    kernel = """
    __global__ void kernel(float* out) {
        MINICNN_SHARED(float, values, THREADS);
        const int i = threadIdx.x;
        if (i == 0) for (int j = 0; j < THREADS; ++j) values[j] = 1;
        BARRIER
        MINICNN_SHARED(float, more, THREADS);
        more[i] = values[i];
        out[i] = more[i];
    }"""
    assert "data race" in run(programs, kernel.replace("BARRIER", ""), flags="-fsanitize=thread")
    kernel = kernel.replace("BARRIER", "__syncthreads();")
    assert "data race" not in run(programs, kernel, flags="-fsanitize=thread")


def test_thread_sanitizer_tells_warp_barriers_from_block_barriers(programs: Path) -> None:
    kernel = ROTATE.replace("__syncthreads();", "if (i < 32) __syncwarp(); __syncthreads();")
    assert "data race" not in run(programs, kernel, flags="-fsanitize=thread")
    kernel = ROTATE.replace("__syncthreads();", "__syncwarp();")
    assert "data race" in run(programs, kernel, flags="-fsanitize=thread")
