"""Layers one after another; the outermost container is a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import shapes
from minicnn.backends import Array, Backend
from minicnn.layers.container import Container, named, run_backward, run_forward
from minicnn.layers.layer import Layer, Shape


class Sequential(Container):
    """``Sequential(Conv2d(1, 8, 3), ReLU(), ...)`` or ``Sequential({"conv1": Conv2d(1, 8, 3), ...})``.

    With ``backend`` the parameters are made at once, seeded by ``seed``, in ``dtype``.  With
    ``input_shape`` (C,H,W) sizes that do not fit together are an error here rather than later.
    Torch: nn.Sequential
    """

    def __init__(
        self, *layers: Layer | dict[str, Layer], backend: str | Backend | None = None, seed: int = 0,
        dtype: str = "float32", input_shape: Shape | None = None,
    ) -> None:  # fmt: skip
        super().__init__(named(layers))
        self.input_shape = input_shape
        if input_shape is not None:
            self.output_shape(input_shape)
        if backend is not None:
            self.bind(backend, seed=seed, dtype=dtype)

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        return run_forward(self.plan, x, training)

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return run_backward(self.plan, dy, saved, need_dx)

    def predict(self, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Logits (N,K) of images x (N,C,H,W), in evaluation mode, ``batch_size`` at a time.

        In a fused model the batch norms right behind convolutions are folded into them, once a call, where
        there are images enough for it to pay.
        """
        from minicnn.folding import folded

        if batch_size < 1:
            shapes.fail("predict", "batch_size", "at least 1", batch_size)
        backend = self.backend
        x = np.asarray(x)
        model = folded(self, x.shape)
        outputs = []
        for start in range(0, max(len(x), 1), batch_size):
            batch = x[start : start + batch_size].astype(self.dtype, copy=False)
            outputs.append(backend.to_numpy(model.forward(backend.asarray(batch), False)[0]))
        return outputs[0].copy() if len(outputs) == 1 else np.concatenate(outputs)

    def predict_proba(self, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Probabilities (N,K): the softmax of `predict`."""
        backend = self.backend
        logits = self.predict(x, batch_size)
        return backend.to_numpy(backend.softmax_forward(backend.asarray(logits))).copy()

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.children.values():
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:
        total = 0
        for layer in self.children.values():
            total += layer.multiply_adds(input_shape)
            input_shape = layer.output_shape(input_shape)
        return total

    def summary(self, input_shape: Shape | None = None) -> str:
        """A table of layers, output shapes, parameters and multiply-adds for one sample.

        Shapes and multiply-adds need an ``input_shape`` (C,H,W), here or at construction.
        """
        from minicnn.summary import summary

        return summary(self, input_shape or self.input_shape)

    def __repr__(self) -> str:
        return self.summary()
