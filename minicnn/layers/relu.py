"""ReLU layer.  Torch: nn.ReLU."""

from __future__ import annotations

from typing import Any

from minicnn.backends import Array
from minicnn.layers.layer import Layer


class ReLU(Layer):
    """max(x, 0), any shape."""

    op = "relu"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.relu_forward(x)
        return y, y if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.relu_backward(dy, saved) if need_dx else None
