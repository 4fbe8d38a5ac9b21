"""An operation on every backend, small enough to read at one sitting: hard_swish.

python examples/add_op/hard_swish.py         needs torch, ninja and a C++ compiler

    y = x * min(max(x + 3, 0), 6) / 6        dy/dx = 0 up to -3, 1 from 3 on, (2x + 3)/6 between

It exists in NumPy (here), in C++ (hard_swish.cpp) and in CUDA (hard_swish.cu, run by the library's
emulation on the CPU), and all three are compared with torch's autograd in float64 and float32.

An operation of the library is made in the same way.  These are the files to touch, in this order:

     1. minicnn/ops/hard_swish.py              derivation, checks, forward and backward in NumPy
     2. minicnn/backends/primitives.py         names, arguments and defaults: the contract
     3. minicnn/backends/tables.py             a line for forward, a line for backward, in both tables
     4. minicnn/testing/operations.py          how a test calls it, and how it calls torch's
     5. minicnn/testing/cases.py               shapes; from here on the suite tests it on numpy
     6. csrc/ops.h                             what the kernels are called (hard_swish.h here)
     7. csrc/host/elementwise.h, or pool.h …   check, allocate, call, offer (hard_swish_host.h here)
     8. csrc/cpu/hard_swish.cpp                the C++ kernels
     9. csrc/cuda/hard_swish.cu                the CUDA kernels
    10. docs/ops/hard_swish.md                 its page
    11. minicnn/layers/hard_swish.py           the layer, if it is one, and its torch.nn module
    12. minicnn/layers/__init__.py             its line

A backend that lacks a primitive cannot be made, so 2 to 9 belong in one commit.  A fused operation needs
no kernel at first: a composition of primitives in minicnn/backends/base.py works on every backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"


def hard_swish_forward(x: np.ndarray) -> np.ndarray:
    """y in x's shape.  Torch: F.hardswish."""
    return x * np.clip(x + 3, 0, 6) / 6


def hard_swish_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx for an upstream gradient dy."""
    return dy * np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)).astype(x.dtype)


def build(kernels: str, *flags: str) -> Any:
    """The module with the kernels of this file, built on first use into torch's cache of extensions."""
    from torch.utils.cpp_extension import load

    return load(
        name="minicnn_example_" + kernels.replace(".", "_"),
        sources=[str(HERE / kernels), str(HERE / "module.cpp")],
        # the emulation's folder comes first: its cuda_runtime.h is the one that hard_swish.cu finds
        extra_include_paths=[str(CSRC / "cuda_emulation"), str(CSRC)],
        extra_cflags=["-std=c++20", "-O2", "-g0", "-fvisibility=hidden", *flags],
        with_cuda=False,
    )


def torch_oracle(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y and dx by torch's autograd."""
    import torch

    leaf = torch.from_numpy(x.copy()).requires_grad_()
    y = torch.nn.functional.hardswish(leaf)
    (dx,) = torch.autograd.grad(y, leaf, torch.from_numpy(dy))
    return y.detach().numpy(), dx.numpy()


def main() -> None:
    """Compare the three with torch; any difference is an error."""
    import torch

    cpp, cuda = build("hard_swish.cpp"), build("hard_swish.cu", "-x", "c++")
    backends = {
        "numpy": (hard_swish_forward, hard_swish_backward, np.asarray),
        "cpp": (cpp.hard_swish_forward, cpp.hard_swish_backward, torch.from_numpy),
        "cuda (emulated)": (cuda.hard_swish_forward, cuda.hard_swish_backward, torch.from_numpy),
    }
    rng = np.random.default_rng(0)
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        x = (4 * rng.standard_normal((2, 3, 5, 7))).astype(dtype)
        dy = rng.standard_normal(x.shape).astype(dtype)
        expected_y, expected_dx = torch_oracle(x, dy)
        for name, (forward, backward, asarray) in backends.items():
            y, dx = forward(asarray(x)), backward(asarray(dy), asarray(x))
            np.testing.assert_allclose(np.asarray(y), expected_y, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(np.asarray(dx), expected_dx, rtol=tolerance, atol=tolerance)
            print(f"{name}, {np.dtype(dtype)}: forward and backward agree with torch")


if __name__ == "__main__":
    main()
