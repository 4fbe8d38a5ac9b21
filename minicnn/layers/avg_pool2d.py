"""Average-pooling layer.  Torch: nn.AvgPool2d."""

from __future__ import annotations

from typing import Any, Self

from minicnn import shapes
from minicnn.backends import Array, Pair, Pool
from minicnn.layers.layer import Layer, Shape, pair, refuse_option, sides, torch_padding
from minicnn.layers.max_pool2d import pool_arguments
from minicnn.shapes import Padding


class AvgPool2d(Layer):
    """(N,C,H,W) -> (N,C,OH,OW), the mean of each window; ``stride`` defaults to the kernel.

    ``padding`` is one number, a pair (h, w) or (top, left, bottom, right): at most half the kernel.
    """

    op = "avg_pool2d"
    torch_name = "AvgPool2d"

    def __init__(
        self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Padding = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        shapes.flags("AvgPool2d", ceil_mode=ceil_mode, count_include_pad=count_include_pad)
        kernel = pair(kernel_size)
        step = kernel if stride is None else pair(stride)
        self.pool = Pool(kernel, step, sides("AvgPool2d", padding), (1, 1), ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.avg_pool2d_forward(x, **self.attributes())
        return y, tuple(x.shape) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        return self.backend.avg_pool2d_backward(dy, input_shape=saved, **self.attributes())

    def attributes(self) -> dict[str, Any]:
        kernel, stride, padding, _, ceil_mode = self.pool
        return {
            "kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode,
            "count_include_pad": self.count_include_pad,
        }  # fmt: skip

    def output_shape(self, input_shape: Shape) -> Shape:
        shapes.check_layer_input("AvgPool2d", input_shape)
        return (input_shape[0], *shapes.pool2d("AvgPool2d", (1, *input_shape), *self.pool))

    def torch_arguments(self) -> dict[str, Any]:
        return {**self.attributes(), "padding": torch_padding(self.pool.padding, "AvgPool2d")}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        refuse_option(module, "divisor_override", module.divisor_override)
        return cls(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad
        )

    def __repr__(self) -> str:
        excluded = "" if self.count_include_pad else ", count_include_pad=False"
        return f"AvgPool2d({pool_arguments(self.pool)}{excluded})"
