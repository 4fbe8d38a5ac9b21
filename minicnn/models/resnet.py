"""ResNets: torchvision's, with the same names and shapes of parameters, and one for small images.

Source: He et al. 2015, arXiv:1512.03385.  Torch: torchvision.models.resnet18, resnet34, resnet50.
"""

from __future__ import annotations

from collections.abc import Callable

from minicnn import init
from minicnn.backends import Pair
from minicnn.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)
from minicnn.models.sizes import check_image_size

Block = Callable[[int, int, int], Residual]
"""(channels in, width, stride) -> a residual block."""


def resnet18(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """2, 2, 2 and 2 basic blocks in four stages."""
    layers = _stem(in_channels) | _stages(_basic_block, 64, 64, (2, 2, 2, 2)) | _head(512, num_classes)
    return check_image_size("resnet18", Sequential(layers), in_channels, image_size)


def resnet34(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """3, 4, 6 and 3 basic blocks in four stages."""
    layers = _stem(in_channels) | _stages(_basic_block, 64, 64, (3, 4, 6, 3)) | _head(512, num_classes)
    return check_image_size("resnet34", Sequential(layers), in_channels, image_size)


def resnet50(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """3, 4, 6 and 3 bottleneck blocks; the stride is in their 3x3 convolution, as in torchvision."""
    stages = _stages(_bottleneck, 64, 64, (3, 4, 6, 3), expansion=4)
    layers = _stem(in_channels) | stages | _head(2048, num_classes)
    return check_image_size("resnet50", Sequential(layers), in_channels, image_size)


def resnet20(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """The CIFAR ResNet of section 4.2 with n = 3: 3 stages of 3 basic blocks, 16, 32 and 64 wide.

    Where a stage halves the map, the shortcut is a 1x1 convolution (the paper's option B), as in the
    larger ones; names are torchvision's.
    """
    stem = {"conv1": _conv(in_channels, 16, 3), "bn1": BatchNorm2d(16), "relu": ReLU()}
    layers = stem | _stages(_basic_block, 16, 16, (3, 3, 3)) | _head(64, num_classes)
    return check_image_size("resnet20", Sequential(layers), in_channels, image_size)


def _stem(in_channels: int) -> dict[str, Layer]:
    return {
        "conv1": _conv(in_channels, 64, 7, 2),
        "bn1": BatchNorm2d(64),
        "relu": ReLU(),
        "maxpool": MaxPool2d(3, stride=2, padding=1),
    }


def _stages(
    block: Block, channels: int, width: int, lengths: tuple[int, ...], *, expansion: int = 1
) -> dict[str, Layer]:
    """layer1, layer2, ...: each is twice as wide as the one before, and its map half as high and wide."""
    stages: dict[str, Layer] = {}
    for i, length in enumerate(lengths):
        blocks = []
        for j in range(length):
            blocks.append(block(channels, width, 2 if i > 0 and j == 0 else 1))
            channels = width * expansion
        stages[f"layer{i + 1}"] = Sequential(*blocks)
        width *= 2
    return stages


def _head(channels: int, num_classes: int) -> dict[str, Layer]:
    return {"avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten(), "fc": Dense(channels, num_classes)}


def _basic_block(channels: int, width: int, stride: int) -> Residual:
    body = {
        "conv1": _conv(channels, width, 3, stride),
        "bn1": BatchNorm2d(width),
        "relu1": ReLU(),
        "conv2": _conv(width, width, 3),
        "bn2": BatchNorm2d(width),
    }
    return Residual(Sequential(body), _shortcut(channels, width, stride), activation=ReLU())


def _bottleneck(channels: int, width: int, stride: int) -> Residual:
    body = {
        "conv1": _conv(channels, width, 1),
        "bn1": BatchNorm2d(width),
        "relu1": ReLU(),
        "conv2": _conv(width, width, 3, stride),
        "bn2": BatchNorm2d(width),
        "relu2": ReLU(),
        "conv3": _conv(width, 4 * width, 1),
        "bn3": BatchNorm2d(4 * width),
    }
    return Residual(Sequential(body), _shortcut(channels, 4 * width, stride), activation=ReLU())


def _shortcut(channels: int, width: int, stride: int) -> Sequential | None:
    """None, which is the identity, if the shapes allow it; else a 1x1 convolution."""
    if channels == width and stride == 1:
        return None
    return Sequential(_conv(channels, width, 1, stride), BatchNorm2d(width))


def _conv(channels: int, width: int, kernel_size: int, stride: int = 1) -> Conv2d:
    """A convolution that divides the map's size by the stride; the batch norm after it has the bias."""
    return Conv2d(
        channels, width, kernel_size, stride, kernel_size // 2, bias=False,
        weight_init=init.kaiming_normal_fan_out,
    )  # fmt: skip
