"""Max-pooling layer.  Torch: nn.MaxPool2d."""

from __future__ import annotations

from typing import Any, Self

from minicnn import shapes
from minicnn.backends import Array, Pair, Pool
from minicnn.layers.layer import Layer, Shape, pair, refuse_option, sides, torch_padding
from minicnn.shapes import Padding


class MaxPool2d(Layer):
    """(N,C,H,W) -> (N,C,OH,OW), the maximum of each window; ``stride`` defaults to the kernel.

    ``padding`` is one number, a pair (h, w) or (top, left, bottom, right): at most half the kernel.
    """

    op = "max_pool2d"
    torch_name = "MaxPool2d"

    def __init__(
        self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Padding = 0,
        dilation: int | Pair = 1, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        shapes.flags("MaxPool2d", ceil_mode=ceil_mode)
        kernel = pair(kernel_size)
        step = kernel if stride is None else pair(stride)
        self.pool = Pool(kernel, step, sides("MaxPool2d", padding), pair(dilation), ceil_mode)

    def attributes(self) -> dict[str, Any]:
        return {"pool": self.pool}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y, argmax = self.backend.max_pool2d_forward(x, **self.pool._asdict(), need_argmax=training)
        return y, (argmax, tuple(x.shape)) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        argmax, shape = saved
        if not need_dx:
            return None
        return self.backend.max_pool2d_backward(dy, argmax, input_shape=shape, **self.pool._asdict())

    def output_shape(self, input_shape: Shape) -> Shape:
        shapes.check_layer_input("MaxPool2d", input_shape)
        return (input_shape[0], *shapes.pool2d("MaxPool2d", (1, *input_shape), *self.pool))

    def torch_arguments(self) -> dict[str, Any]:
        return {**self.pool._asdict(), "padding": torch_padding(self.pool.padding, "MaxPool2d")}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        refuse_option(module, "return_indices", module.return_indices)
        return cls(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)

    def __repr__(self) -> str:
        return f"MaxPool2d({pool_arguments(self.pool)})"


def pool_arguments(pool: Pool) -> str:
    """A pool's arguments as one would write them, defaults left out."""

    def short(value: Padding) -> str:
        return str(value[0] if len(value) == 2 and value[0] == value[1] else value)

    parts = [short(pool.kernel_size)]
    defaults = {"stride": pool.kernel_size, "padding": (0, 0), "dilation": (1, 1)}
    for name, default in defaults.items():
        value = getattr(pool, name)
        if value != default:
            parts.append(f"{name}={short(value)}")
    if pool.ceil_mode:
        parts.append("ceil_mode=True")
    return ", ".join(parts)
