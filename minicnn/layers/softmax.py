"""Softmax layer.  Torch: nn.Softmax(dim=1)."""

from __future__ import annotations

from typing import Any, Self

from minicnn.backends import Array
from minicnn.layers.layer import Layer, refuse_option


class Softmax(Layer):
    """(N,K) -> (N,K) probabilities.  Not needed before the Trainer's loss, which takes logits."""

    op = "softmax"
    torch_name = "Softmax"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        p = self.backend.softmax_forward(x)
        return p, p if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.softmax_backward(dy, saved) if need_dx else None

    def torch_arguments(self) -> dict[str, Any]:
        return {"dim": 1}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        refuse_option(module, f"dim={module.dim}", module.dim != 1)
        return cls()
