"""Flatten layer.  Torch: nn.Flatten()."""

from __future__ import annotations

import math
from typing import Any, Self

from minicnn.backends import Array
from minicnn.layers.layer import Layer, Shape, refuse_option


class Flatten(Layer):
    """(N,C,H,W) -> (N,C*H*W)."""

    op = "flatten"
    torch_name = "Flatten"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        return self.backend.flatten_forward(x), tuple(x.shape) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.flatten_backward(dy, input_shape=saved) if need_dx else None

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        dims = (module.start_dim, module.end_dim)
        refuse_option(module, "dims other than (1, -1)", dims != (1, -1))
        return cls()
