"""The emulation that counts: sectors, bank conflicts and parted lanes, in examples and products."""

from __future__ import annotations

import re

import pytest

from scripts import cuda_counts
from scripts.cuda_counts import Kernel

pytestmark = pytest.mark.skipif(
    cuda_counts.compiler_missing() is not None, reason=f"counting: {cuda_counts.compiler_missing()}"
)

EXAMPLES = """
#define main copy_main
#include "copy.cu"
#undef main
#define main branches_main
#include "branches.cu"
#undef main
#define main transpose_main
#include "transpose.cu"
#undef main

// Each lane loads a T from shared memory, `step` words after the lane before it.
template <typename T>
__global__ void step_kernel(const float*, float* to, int step) {
    MINICNN_SHARED(float, words, 2048);
    for (int i = int(threadIdx.x); i < 2048; i += 32) words[i] = 0;
    __syncthreads();
    const T read = *reinterpret_cast<const T*>(words + threadIdx.x * step);
    *reinterpret_cast<T*>(to + threadIdx.x * sizeof(T) / 4) = read;
}
struct alignas(8) Two { float v[2]; };
struct alignas(16) Four { float v[4]; };

// Threads 0-9 of the last warp take part, and atomics count too.
__global__ void odd_kernel(unsigned* to, const float* from) {
    if (threadIdx.x >= 42) return;
    atomicAdd(to, unsigned(from[threadIdx.x + 1]));
}

int main() {
    if (copy_main() || branches_main() || transpose_main()) return 1;
    Array from("from", 256), to("to", 256);
    launch(step_kernel<float>, 1, 32, 0, nullptr, from, to, 2);
    launch(step_kernel<Two>, 1, 32, 0, nullptr, from, to, 2);
    launch(step_kernel<Four>, 1, 32, 0, nullptr, from, to, 20);
    launch(odd_kernel, 2, 64, 0, nullptr, reinterpret_cast<unsigned*>(static_cast<float*>(to)), from);
    return 0;
}
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    folder = tmp_path_factory.mktemp("counts")
    source = folder / "examples.cu"
    source.write_text(EXAMPLES)
    return {kernel.name: kernel for kernel in cuda_counts.run(cuda_counts.build([source], folder))}


def test_copies_touch_whole_sectors_or_one_each(examples: dict[str, Kernel]) -> None:
    whole, pieces = examples["copy_coalesced"], examples["copy_in_pieces"]
    assert [(line.access, line.array, line.requests, line.sectors) for line in whole.lines] == [
        ("read", "from", 2048, 8192), ("write", "to", 2048, 8192)]  # fmt: skip
    assert [line.sectors for line in pieces.lines] == [65536, 65536]  # 32 a request, one for each lane
    assert {line.least_sectors for kernel in (whole, pieces) for line in kernel.lines} == {8192}
    assert whole.arrays == pieces.arrays == {"from": (8192, 8192), "to": (8192, 8192)}


def test_a_column_without_padding_lies_in_one_bank(examples: dict[str, Kernel]) -> None:
    bad, good = examples["transpose_without_padding"], examples["transpose_with_padding"]
    assert [(line.turns, line.conflicts) for line in bad.lines if line.shared] == [
        (2048, 0),
        (65536, 63488),
    ]
    assert [(line.turns, line.conflicts) for line in good.lines if line.shared] == [(2048, 0), (2048, 0)]
    for kernel in (bad, good):
        assert kernel.total("sectors", shared=False) == kernel.total("least_sectors", shared=False) == 16384


def test_lanes_part_where_threads_choose_and_not_where_warps_do(examples: dict[str, Kernel]) -> None:
    assert sum(parted for _, parted in examples["branch_by_thread"].divergent.values()) >= 8
    assert examples["branch_by_warp"].divergent == {}


@pytest.mark.parametrize(
    ("name", "turns", "conflicts"),
    [("float", 2, 1), ("Two", 2, 0), ("Four", 4, 0)],
    ids=["4 bytes, 2 words apart", "8 bytes", "16 bytes, 20 words apart"],
)
def test_banks_serve_wide_loads_by_groups_of_lanes(
    examples: dict[str, Kernel], name: str, turns: int, conflicts: int
) -> None:
    (read,) = [
        line for line in examples[f"step_kernel<{name}>"].lines if line.shared and line.access == "read"
    ]
    assert (read.requests, read.lanes, read.turns, read.conflicts) == (1, 32, turns, conflicts)


def test_lanes_that_leave_and_atomics_are_counted(examples: dict[str, Kernel]) -> None:
    kernel = examples["odd_kernel"]
    assert [(line.access, line.requests, line.lanes, line.sectors, line.least_sectors)
            for line in kernel.lines] == [
        ("read", 4, 84, 14, 12),  # in each block 32 lanes from byte 4: 5 sectors; 10 lanes from byte 132: 2
        ("atomic", 4, 84, 4, 4),
    ]  # fmt: skip
    assert sum(parted for _, parted in kernel.divergent.values()) == 2


def test_tables_name_kernel_array_and_line(examples: dict[str, Kernel]) -> None:
    text = cuda_counts.table(examples["transpose_without_padding"])
    assert "transpose_without_padding: 64 blocks" in text
    assert re.search(r"63488  read shared +transpose.cu:\d+ < transpose.cu:\d+$", text, re.M)
    assert "from: 262144 bytes, each once in a block" in text


PRODUCTS = """
#include "cuda/conv2d/operands.h"
#include "cuda/conv2d/products.h"
#include "run.h"

using namespace minicnn;
using namespace minicnn::cuda;

// Two images of 8 x 8 with 64 channels, and 128 filters of 3 x 3.
int main() {
    const ConvParams p{2, 64, 8, 8, 128, 3, 3, 8, 8, 1, 1, 1, 1, 1, 1, 1};
    const int pixels = 128, taps = 576, filters = 128;
    Array x("x", pixels * 64), w("w", filters * taps), y("y", pixels * filters);
    launch_product<ThreadShape<float, 16, 16, 8, 8, 2, 3>>(
        Patches<float, true>{x, 64, 64, place_in_input(p), Pixels(8, 8), Taps(3, 64)},
        Matrix<float, true>{w, taps, 0}, ForwardOutput<float>{y, nullptr, filters, filters, true},
        ProductSize{pixels, taps, filters, 1}, 1);
    return 0;
}
"""


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> list[Kernel]:
    folder = tmp_path_factory.mktemp("products")
    source = folder / "products.cu"
    source.write_text(PRODUCTS)
    return cuda_counts.run(cuda_counts.build([source], folder))


def test_products_touch_whole_sectors_and_meet_no_bank_conflicts(products: list[Kernel]) -> None:
    (kernel,) = products
    assert re.match(r"product_kernel<", kernel.name)
    outside = [line for line in kernel.lines if not line.shared]
    assert {line.array for line in outside} == {"x", "w", "y"}
    for line in outside:
        assert line.sectors == line.least_sectors > 0, cuda_counts.table(kernel)
    shared = [line for line in kernel.lines if line.shared]
    assert {line.access for line in shared} == {"read", "write"}
    assert sum(line.conflicts for line in shared) == 0, cuda_counts.table(kernel)
