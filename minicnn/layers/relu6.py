"""ReLU6 layer.  Torch: nn.ReLU6."""

from __future__ import annotations

from typing import Any, Self

from minicnn.backends import Array
from minicnn.layers.layer import Layer


class ReLU6(Layer):
    """min(max(x, 0), 6), any shape."""

    op = "relu6"
    torch_name = "ReLU6"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.relu6_forward(x)
        return y, y if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.relu6_backward(dy, saved) if need_dx else None

    @classmethod
    def from_torch(cls, module: Any) -> Self:  # noqa: ARG003 - a ReLU6 has no options
        return cls()
