"""An operation on every backend, small enough to read at one sitting: hard_swish.

python examples/add_op/hard_swish.py         needs torch, ninja and a C++ compiler

    y = x * min(max(x + 3, 0), 6) / 6        dy/dx = 0 up to -3, 1 from 3 on, (2x + 3)/6 between

It exists in NumPy (here), in C++ (hard_swish.cpp) and in CUDA (hard_swish.cu, run by the library's
emulation on the CPU), and all three are compared with torch's autograd in float64 and float32.
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


def build() -> Any:
    """The compiled module, built on first use into torch's cache of extensions."""
    from torch.utils.cpp_extension import load

    return load(
        name="minicnn_example_hard_swish",
        sources=[str(HERE / "hard_swish.cpp"), str(HERE / "module.cpp")],
        # the emulation's folder comes first: its cuda_runtime.h is the one that hard_swish.cu finds
        extra_include_paths=[str(CSRC / "cuda_emulation"), str(CSRC)],
        extra_cflags=["-std=c++20", "-O2", "-g0"],
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

    module = build()
    backends = {
        "numpy": (hard_swish_forward, hard_swish_backward, np.asarray),
        "cpp": (module.cpp_forward, module.cpp_backward, torch.from_numpy),
        "cuda (emulated)": (module.cuda_forward, module.cuda_backward, torch.from_numpy),
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
