"""Dropout layer.  Torch: nn.Dropout."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from minicnn import shapes
from minicnn.backends import Array
from minicnn.layers.layer import RandomLayer, Shape


class Dropout(RandomLayer):
    """Zeroes values with probability p in training and divides the rest by 1-p; else the identity.

    The mask is drawn on the host by this layer's generator, so that every backend drops the same.
    """

    op = "dropout"
    torch_name = "Dropout"

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            shapes.fail("Dropout", "p", "a number from 0 to 1", p)
        self.p = p

    def attributes(self) -> dict[str, Any]:
        return {"p": self.p}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        if not training or self.p == 0:
            return x, None
        mask = self.drawn(tuple(x.shape))
        return self.backend.dropout_forward(x, mask, p=self.p), mask

    def draw(self, shape: Shape) -> np.ndarray:
        """Which values are kept."""
        return self.generator.random(shape, dtype="float32") >= self.p

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        if saved is None or not need_dx:
            return dy if need_dx else None
        return self.backend.dropout_backward(dy, saved, p=self.p)

    def torch_arguments(self) -> dict[str, Any]:
        return {"p": self.p}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        return cls(module.p)

    def __repr__(self) -> str:
        return f"Dropout({self.p:g})"
