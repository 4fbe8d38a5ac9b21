"""Joining images along their channels; backward cuts the gradient into the same pieces.

Torch: torch.cat(xs, dim=1)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minicnn import shapes


def concat_forward(xs: Sequence[np.ndarray]) -> np.ndarray:
    """(N, C_1 + C_2 + ..., H, W) of arrays (N,C_i,H,W)."""
    shapes.concat("concat", xs)
    joined = np.concatenate([x.transpose(0, 2, 3, 1) for x in xs], axis=3)
    return joined.transpose(0, 3, 1, 2)


def concat_backward(dy: np.ndarray, *, sizes: Sequence[int]) -> list[np.ndarray]:
    """The gradients to the forward's arrays: dy (N,C,H,W) cut along C into pieces of these sizes."""
    shapes.check_image("concat_backward", "dy", dy)
    if sum(sizes) != dy.shape[1] or min(sizes, default=0) < 1:
        shapes.fail("concat_backward", "sizes", f"positive sizes with sum C={dy.shape[1]}", tuple(sizes))
    ends = np.cumsum(sizes)
    return [dy[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]
