"""2-D convolution layer.  Torch: nn.Conv2d."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from minicnn import init, shapes
from minicnn.backends import Array, Conv, Pair
from minicnn.layers.layer import Generators, Layer, Shape, pair, refuse_option, sides, torch_padding
from minicnn.shapes import Padding


class Conv2d(Layer):
    """(N,in_channels,H,W) -> (N,out_channels,OH,OW); weight (F,C/groups,KH,KW), bias (F,).

    ``padding`` is one number, a pair (h, w), (top, left, bottom, right), "valid" for none, or "same": the
    output is then as large as the input, the stride must be 1, and of an odd number of rows or columns the
    larger half comes after the image, as in torch.

    ``weight_init`` and ``bias_init`` draw their first values, by default as nn.Conv2d does.
    """

    op = "conv2d"
    torch_name = "Conv2d"

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | Pair, stride: int | Pair = 1,
        padding: int | Padding | str = 0, dilation: int | Pair = 1, groups: int = 1, bias: bool = True,
        *, weight_init: init.Initializer = init.torch_default_weight,
        bias_init: init.Initializer = init.torch_default_bias,
    ) -> None:  # fmt: skip
        super().__init__()
        shapes.flags("Conv2d", bias=bias)
        if groups < 1 or in_channels % groups or out_channels % groups:
            sizes = f"in_channels={in_channels} and out_channels={out_channels}"
            shapes.fail("Conv2d", "groups", f"a divisor of {sizes}", groups)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.bias = pair(kernel_size), bias
        self.weight_init, self.bias_init = weight_init, bias_init
        steps, spread = pair(stride), pair(dilation)
        self.conv = Conv(steps, _padding(padding, self.kernel_size, steps, spread), spread, groups)

    def initial_params(self, generator: Generators) -> dict[str, np.ndarray]:
        shape = (self.out_channels, self.in_channels // self.conv.groups, *self.kernel_size)
        params = {"weight": self.weight_init(generator("weight"), shape)}
        if self.bias:
            params["bias"] = self.bias_init(generator("bias"), shape)
        return params

    def with_params(self, params: dict[str, Array]) -> Self:
        twin = super().with_params(params)
        twin.bias = self.bias or "bias" in params
        return twin

    def attributes(self) -> dict[str, Any]:
        return {"conv": self.conv}

    def arguments(self, training: bool) -> tuple[tuple[Array | None, ...], dict[str, Any]]:  # noqa: ARG002
        return (self.params["weight"], self.params.get("bias")), {"conv": self.conv}

    def backward_options(self) -> dict[str, Any]:
        return {"conv": self.conv}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.conv2d_forward(
            x, self.params["weight"], self.params.get("bias"), **self.conv._asdict()
        )
        return y, x if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        dx, dw, db = self.backend.conv2d_backward(
            dy, saved, self.params["weight"], **self.conv._asdict(), need_dx=need_dx, **self.need_grads()
        )
        self.set_grads(dw, db)
        return dx

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3 or input_shape[0] != self.in_channels:
            shapes.fail("Conv2d", "input_shape", f"(C={self.in_channels}, H, W)", input_shape)
        stride, padding, dilation, _ = self.conv
        sizes = []
        for axis, letter in enumerate("HW"):
            size, kernel = input_shape[1 + axis], self.kernel_size[axis]
            sides = shapes.padding_of_axis(padding, axis)
            out = shapes.conv_output_size(size, kernel, stride[axis], sides, dilation[axis])
            if out < 1:
                shapes.fail("Conv2d", "input_shape", f"{letter} large enough for {self}", input_shape)
            sizes.append(out)
        return (self.out_channels, *sizes)

    def multiply_adds(self, input_shape: Shape) -> int:
        patch = self.in_channels // self.conv.groups * math.prod(self.kernel_size)
        return math.prod(self.output_shape(input_shape)) * patch

    def torch_arguments(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_channels, "out_channels": self.out_channels,
            "kernel_size": self.kernel_size, **self.conv._asdict(), "padding": _torch_padding(self),
            "bias": self.bias,
        }  # fmt: skip

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        refuse_option(module, f"padding_mode={module.padding_mode!r}", module.padding_mode != "zeros")
        return cls(
            module.in_channels, module.out_channels, module.kernel_size, module.stride,
            module.padding, module.dilation, module.groups, module.bias is not None,
        )  # fmt: skip

    def __repr__(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, {_short(self.kernel_size)}"]
        for (name, value), default in zip(
            self.conv._asdict().items(), Conv((1, 1), (0, 0), (1, 1), 1), strict=True
        ):
            if value != default:
                parts.append(f"{name}={_short(value)}")
        if not self.bias:
            parts.append("bias=False")
        return f"Conv2d({', '.join(parts)})"


def _torch_padding(layer: Conv2d) -> Pair | str:
    """nn.Conv2d can differ in its sides only by padding="same"."""
    padding = layer.conv.padding
    if layer.conv.stride == (1, 1) and padding == same_padding(layer.kernel_size, layer.conv.dilation):
        return padding if len(padding) == 2 else "same"
    return torch_padding(padding, "Conv2d")


def same_padding(kernel_size: Pair, dilation: Pair) -> Padding:
    """The padding with which the output is as large as the input, at a stride of 1."""
    spans = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    (top, left), (bottom, right) = [span // 2 for span in spans], [-(-span // 2) for span in spans]
    return sides("Conv2d", (top, left, bottom, right))


def _padding(padding: int | Padding | str, kernel_size: Pair, stride: Pair, dilation: Pair) -> Padding:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        if stride != (1, 1):
            shapes.fail("Conv2d", "stride", "1 with padding='same'", stride)
        return same_padding(kernel_size, dilation)
    if isinstance(padding, str):
        shapes.fail("Conv2d", "padding", "'same', 'valid' or integers", repr(padding))
    return sides("Conv2d", padding)


def first_filters(state: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray] | None:
    """The name and the weight (F,C,KH,KW) of the first convolution of a state dict, if there is one."""
    for name, array in state.items():
        if array.ndim == 4:
            return name.removesuffix(".weight"), array
    return None


def _short(value: int | Padding) -> int | Padding:
    return value[0] if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1] else value
