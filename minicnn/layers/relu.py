"""ReLU layer.  Torch: nn.ReLU."""

from __future__ import annotations

from typing import Any, Self

from minicnn.backends import Array
from minicnn.layers.layer import Layer


class ReLU(Layer):
    """max(x, 0), any shape."""

    op = "relu"
    torch_name = "ReLU"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.relu_forward(x)
        return y, y if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.relu_backward(dy, saved) if need_dx else None

    @classmethod
    def from_torch(cls, module: Any) -> Self:  # noqa: ARG003 - a ReLU has no options
        return cls()
