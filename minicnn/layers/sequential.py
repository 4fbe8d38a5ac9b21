"""Layers one after another; the outermost container is a model."""

from __future__ import annotations

from minicnn.backends import Backend
from minicnn.graph.graph import Builder
from minicnn.layers.container import named
from minicnn.layers.layer import Layer, Shape, join
from minicnn.layers.model import Model


class Sequential(Model):
    """``Sequential(Conv2d(1, 8, 3), ReLU(), ...)`` or ``Sequential({"conv1": Conv2d(1, 8, 3), ...})``.

    With ``backend`` the parameters are made at once, seeded by ``seed``, in ``dtype``.  The model computes
    in ``precision``: float32, bfloat16, or tf32 on cuda.  With ``input_shape`` (C,H,W) sizes that do not
    fit together are an error here rather than later.
    Torch: nn.Sequential
    """

    def __init__(
        self, *layers: Layer | dict[str, Layer], backend: str | Backend | None = None, seed: int = 0,
        dtype: str = "float32", precision: str = "float32", input_shape: Shape | None = None,
    ) -> None:  # fmt: skip
        super().__init__(named(layers))
        self.input_shape = input_shape
        if input_shape is not None:
            self.output_shape(input_shape)
        if backend is not None:
            self.bind(backend, seed=seed, dtype=dtype, precision=precision)
        else:
            self._take_precision(precision)

    def add_to(self, graph: Builder, value: int, name: str) -> int:
        for child_name, child in self.named_children():
            value = graph.layer(child, value, join(name, child_name))
        return value
