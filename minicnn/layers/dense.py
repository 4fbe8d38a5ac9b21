"""Fully connected layer.  Torch: nn.Linear."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from minicnn import init, shapes
from minicnn.backends import Array
from minicnn.layers.layer import Generators, Layer, Shape


class Dense(Layer):
    """(N,in_features) -> (N,out_features); weight (out,in), bias (out,).

    ``weight_init`` and ``bias_init`` draw their first values, by default as nn.Linear does.
    """

    op = "dense"
    torch_name = "Linear"

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *,
        weight_init: init.Initializer = init.torch_default_weight,
        bias_init: init.Initializer = init.torch_default_bias,
    ) -> None:  # fmt: skip
        super().__init__()
        shapes.flags("Dense", bias=bias)
        self.weight_init, self.bias_init = weight_init, bias_init
        self.in_features, self.out_features, self.bias = in_features, out_features, bias

    def initial_params(self, generator: Generators) -> dict[str, np.ndarray]:
        shape = (self.out_features, self.in_features)
        params = {"weight": self.weight_init(generator("weight"), shape)}
        if self.bias:
            params["bias"] = self.bias_init(generator("bias"), shape)
        return params

    def arguments(self, training: bool) -> tuple[tuple[Array | None, ...], dict[str, Any]]:  # noqa: ARG002
        return (self.params["weight"], self.params.get("bias")), {}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.dense_forward(x, self.params["weight"], self.params.get("bias"))
        return y, x if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        dx, dw, db = self.backend.dense_backward(
            dy, saved, self.params["weight"], need_dx=need_dx, **self.need_grads()
        )
        self.set_grads(dw, db)
        return dx

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape != (self.in_features,):
            shapes.fail("Dense", "input_shape", f"({self.in_features},)", input_shape)
        return (self.out_features,)

    def multiply_adds(self, input_shape: Shape) -> int:
        return self.output_shape(input_shape)[0] * self.in_features

    def torch_arguments(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        return cls(module.in_features, module.out_features, module.bias is not None)

    def __repr__(self) -> str:
        return f"Dense({self.in_features}, {self.out_features}{'' if self.bias else ', bias=False'})"
