"""VGGs: torchvision's, with the same names and shapes of parameters, and one for small images.

Source: Simonyan and Zisserman 2014, arXiv:1409.1556.  Torch: torchvision.models.vgg11, vgg11_bn, ...
"""

from __future__ import annotations

from itertools import pairwise

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
    MaxPool2d,
    ReLU,
    Sequential,
)
from minicnn.models.sizes import check_image_size

DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}
"""How many 3x3 convolutions stand before each pool: the paper's configurations A, B and D."""
WIDTHS = (64, 128, 256, 512, 512)


def vgg11(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """8 convolutions, 3 dense layers."""
    return vgg("vgg11", in_channels, num_classes, image_size)


def vgg11_bn(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """`vgg11` with batch norm after each convolution."""
    return vgg("vgg11", in_channels, num_classes, image_size, batch_norm=True)


def vgg13(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """10 convolutions, 3 dense layers."""
    return vgg("vgg13", in_channels, num_classes, image_size)


def vgg13_bn(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """`vgg13` with batch norm after each convolution."""
    return vgg("vgg13", in_channels, num_classes, image_size, batch_norm=True)


def vgg16(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """13 convolutions, 3 dense layers."""
    return vgg("vgg16", in_channels, num_classes, image_size)


def vgg16_bn(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """`vgg16` with batch norm after each convolution."""
    return vgg("vgg16", in_channels, num_classes, image_size, batch_norm=True)


def vgg(
    name: str, in_channels: int, num_classes: int, image_size: Pair, *, batch_norm: bool = False,
    hidden: int = 4096,
) -> Sequential:  # fmt: skip
    """The VGG of a row of DEPTHS; ``hidden`` is the width of the dense layers.

    It takes any image of at least 32x32: the last map is averaged to 7x7, as in torchvision.
    """
    layers = {
        "features": _features(in_channels, WIDTHS, DEPTHS[name], batch_norm=batch_norm),
        "avgpool": AdaptiveAvgPool2d(7),
        "flatten": Flatten(),
        "classifier": _classifier((WIDTHS[-1] * 7 * 7, hidden, hidden, num_classes)),
    }
    full_name = f"{name}_bn" if batch_norm else name
    return check_image_size(full_name, Sequential(layers), in_channels, image_size)


def vgg_small(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Three pairs of 3x3 convolutions with batch norm, 32, 64 and 128 wide; then the map's mean.

    It takes 39 million multiply-adds for an image of 3x32x32, about as many as `resnet20`.
    """
    layers: dict[str, Layer] = {
        "features": _features(in_channels, (32, 64, 128), (2, 2, 2), batch_norm=True, bias=False),
        "avgpool": AdaptiveAvgPool2d(1),
        "flatten": Flatten(),
        "classifier": Dense(128, num_classes),
    }
    return check_image_size("vgg_small", Sequential(layers), in_channels, image_size)


def _features(
    channels: int, widths: tuple[int, ...], depths: tuple[int, ...], *, batch_norm: bool, bias: bool = True
) -> Sequential:
    layers: list[Layer] = []
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            conv = Conv2d(
                channels, width, 3, padding=1, bias=bias,
                weight_init=init.kaiming_normal_fan_out, bias_init=init.zero_bias,
            )  # fmt: skip
            layers += [conv, BatchNorm2d(width), ReLU()] if batch_norm else [conv, ReLU()]
            channels = width
        layers.append(MaxPool2d(2))
    return Sequential(*layers)


def _classifier(widths: tuple[int, ...]) -> Sequential:
    layers: list[Layer] = []
    for inputs, outputs in pairwise(widths):
        dense = Dense(inputs, outputs, weight_init=init.normal(0.01), bias_init=init.zero_bias)
        layers += [dense, ReLU(), Dropout(0.5)]
    return Sequential(*layers[:-2])
