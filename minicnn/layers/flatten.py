"""Flatten layer.  Torch: nn.Flatten()."""

from __future__ import annotations

import math
from typing import Any

from minicnn.backends import Array
from minicnn.layers.layer import Layer, Shape


class Flatten(Layer):
    """(N,C,H,W) -> (N,C*H*W)."""

    op = "flatten"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        return self.backend.flatten_forward(x), tuple(x.shape) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.flatten_backward(dy, input_shape=saved) if need_dx else None

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)
