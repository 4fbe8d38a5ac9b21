"""What GoogLeNet and Inception v3 are made of, named as in torchvision."""

from __future__ import annotations

from minicnn import init
from minicnn.backends import Pair
from minicnn.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    ReLU,
    Sequential,
)


class ConvUnit:
    """Makes units of conv, batch norm and ReLU, whose weights start as N(0, std^2).

    torchvision truncates that distribution at ±2.  That is 20 standard deviations or more away, so that
    nothing is lost by leaving it out.
    """

    def __init__(self, std: float) -> None:
        self.weight_init = init.normal(std)

    def __call__(
        self, channels: int, width: int, kernel_size: int | Pair, *, stride: int = 1,
        padding: int | Pair = 0,
    ) -> Sequential:  # fmt: skip
        """torchvision's BasicConv2d."""
        conv = Conv2d(
            channels, width, kernel_size, stride, padding, bias=False, weight_init=self.weight_init
        )
        return Sequential({"conv": conv, "bn": BatchNorm2d(width, eps=1e-3), "relu": ReLU()})

    def head(self, channels: int, num_classes: int, dropout: float) -> dict[str, Layer]:
        """The mean over the map, dropout, and a dense layer to the classes."""
        return {
            "avgpool": AdaptiveAvgPool2d(1),
            "flatten": Flatten(),
            "dropout": Dropout(dropout),
            "fc": Dense(channels, num_classes, weight_init=self.weight_init),
        }
