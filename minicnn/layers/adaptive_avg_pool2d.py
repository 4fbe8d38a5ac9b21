"""Average pooling to a given size.  Torch: nn.AdaptiveAvgPool2d."""

from __future__ import annotations

from typing import Any, Self

from minicnn import shapes
from minicnn.backends import Array, Pair
from minicnn.layers.layer import Layer, Shape, pair, refuse_option


class AdaptiveAvgPool2d(Layer):
    """(N,C,H,W) -> (N,C,OH,OW) for the ``output_size`` (OH,OW), whatever H and W are."""

    op = "adaptive_avg_pool2d"
    torch_name = "AdaptiveAvgPool2d"

    def __init__(self, output_size: int | Pair) -> None:
        super().__init__()
        self.output_size = pair(output_size)

    def attributes(self) -> dict[str, Any]:
        return {"output_size": self.output_size}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = self.backend.adaptive_avg_pool2d_forward(x, **self.attributes())
        return y, tuple(x.shape) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return self.backend.adaptive_avg_pool2d_backward(dy, input_shape=saved) if need_dx else None

    def output_shape(self, input_shape: Shape) -> Shape:
        shapes.check_layer_input("AdaptiveAvgPool2d", input_shape)
        return (input_shape[0], *self.output_size)

    def torch_arguments(self) -> dict[str, Any]:
        return {"output_size": self.output_size}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        sizes = module.output_size
        refuse_option(module, f"output_size={sizes}", isinstance(sizes, (tuple, list)) and None in sizes)
        return cls(sizes)

    def __repr__(self) -> str:
        return f"AdaptiveAvgPool2d({self.output_size})"
