"""A calculated roofline: the least bytes and operations of each CUDA kernel, and an H100's time for them.

python scripts/cuda_roofline.py    prints the table of docs/cuda.md
"""

from __future__ import annotations

from typing import NamedTuple

BYTES_PER_S = 3.35e12  # HBM3 of an H100 SXM
FP32, TF32 = 66.9e12, 494.7e12  # operations a second, dense; NVIDIA's data sheet
FLOAT = 4


class Kernel(NamedTuple):
    """The least that one launch must move and compute, in float32."""

    name: str
    values: float  # that are read or written, each counted once
    operations: float
    on_tensor_cores: float = 0  # operations if TF32 is allowed; 0 if the kernel has no TF32 version


def convolutions(title: str, n: int, c: int, h: int, f: int, k: int, pool: bool = False) -> list[Kernel]:
    """A convolution's three products, on h x h maps with padding that keeps their size."""
    x, w, y = n * c * h * h, f * c * k * k, n * f * h * h
    out = y / 4 * 1.25 if pool else y  # for each pooled value one byte more, which names the winner
    operations = 2.0 * y * c * k * k
    first_layer = c <= 3
    return [
        Kernel(f"{title}: forward", x + w + out, operations, 0 if first_layer else operations),
        Kernel(f"{title}: gradient to x", x + w + out, operations, 0 if first_layer else operations),
        Kernel(f"{title}: gradient to w", x + w + out, operations, 0 if first_layer else operations),
    ]


def kernels() -> list[Kernel]:
    """Typical shapes of the benchmarked networks, at batch 128 to 256."""
    n, c, h = 128, 64, 32
    x = n * c * h * h
    parameters = 11.2e6  # resnet18
    dense = 2.0 * 256 * 3136 * 128
    return [
        *convolutions("conv 3x3, 1 to 32, 28x28, with ReLU and pool", 256, 1, 28, 32, 3, pool=True)[::2],
        *convolutions("conv 3x3, 3 to 32, 32x32", 256, 3, 32, 32, 3)[::2],
        *convolutions("conv 3x3, 32 to 64, 14x14, with ReLU and pool", 256, 32, 14, 64, 3, pool=True),
        *convolutions("conv 3x3, 64 to 64, 32x32", n, c, h, 64, 3),
        *convolutions("conv 3x3, 256 to 256, 8x8", n, 256, 8, 256, 3),
        *convolutions("conv 1x1, 256 to 64, 16x16", n, 256, 16, 64, 1),
        Kernel("depthwise 3x3, 64, 32x32: forward", 2 * x, 18.0 * x),
        Kernel("batch norm + ReLU: forward (x is read twice)", 3 * x, 10.0 * x),
        Kernel("batch norm + ReLU: backward (all is read twice)", 7 * x, 14.0 * x),
        Kernel("max-pool 2x2: forward", 1.3125 * x, 1.0 * x),
        Kernel("ReLU: forward", 2 * x, 1.0 * x),
        Kernel("add: forward", 3 * x, 1.0 * x),
        Kernel("softmax cross-entropy, 256 x 10", 2 * 2560, 40.0 * 2560),
        Kernel("dense 3136 to 128, batch 256: forward", 256 * 3136 + 128 * 3136, dense, dense),
        Kernel("Adam, 11.2 M parameters", 7 * parameters, 15 * parameters),
    ]


def main() -> None:
    print("| kernel | MB | GFLOP | FLOP/byte | memory, us | FP32, us | TF32, us | bound, FP32 |")
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    for k in kernels():
        moved = k.values * FLOAT
        memory = moved / BYTES_PER_S
        fp32 = k.operations / FP32
        tf32 = f"{k.on_tensor_cores / TF32 * 1e6:.1f}" if k.on_tensor_cores else "-"
        bound = "memory" if memory > fp32 else "arithmetic"
        print(
            f"| {k.name} | {moved / 1e6:.1f} | {k.operations / 1e9:.2f} | {k.operations / moved:.1f} "
            f"| {memory * 1e6:.1f} | {fp32 * 1e6:.1f} | {tf32} | {bound} |"
        )


if __name__ == "__main__":
    main()
