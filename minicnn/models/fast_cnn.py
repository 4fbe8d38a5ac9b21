"""The nets of the Fashion-MNIST recipes: each block pools right after its first convolution.

After the pool only a quarter of the pixels is left, so that the rest of the block computes less; and the
convolution and the pool run as one fused op.  Source: the blocks of Jordan 2024, "94% on CIFAR-10 in 3.29
seconds on a single GPU", arXiv:2404.00498, with ReLU in place of GELU.
"""

from __future__ import annotations

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


def fast_cnn(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Three blocks, 32, 64 and 128 wide: conv, pool, batch norm, ReLU, conv, batch norm, ReLU.

    12 million multiply-adds for 1x28x28.
    """
    blocks: dict[str, Layer] = {}
    channels = in_channels
    for number, width in enumerate((32, 64, 128), start=1):
        blocks[f"block{number}"] = Sequential({
            **_pooled(channels, width),
            "conv2": _conv(width, width),
            "bn2": BatchNorm2d(width),
            "relu2": ReLU(),
        })  # fmt: skip
        channels = width
    return _net("fast_cnn", blocks, channels, in_channels, num_classes, image_size)


def fast_resnet(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Three blocks, 64, 128 and 256 wide: conv, pool, batch norm, ReLU, and a residual of two more convs.

    69 million multiply-adds for 1x28x28.
    """
    blocks: dict[str, Layer] = {}
    channels = in_channels
    for number, width in enumerate((64, 128, 256), start=1):
        body = {
            "conv2": _conv(width, width),
            "bn2": BatchNorm2d(width),
            "relu2": ReLU(),
            "conv3": _conv(width, width),
            "bn3": BatchNorm2d(width),
        }
        residual = Residual(Sequential(body), activation=ReLU())
        blocks[f"block{number}"] = Sequential(_pooled(channels, width) | {"residual": residual})
        channels = width
    return _net("fast_resnet", blocks, channels, in_channels, num_classes, image_size)


def _pooled(channels: int, width: int) -> dict[str, Layer]:
    """The beginning of a block, which halves the map."""
    return {
        "conv1": _conv(channels, width),
        "pool": MaxPool2d(2),
        "bn1": BatchNorm2d(width),
        "relu1": ReLU(),
    }


def _conv(channels: int, width: int) -> Conv2d:
    """A convolution that keeps the map's size; it has no bias, as the batch norm after it has one."""
    return Conv2d(channels, width, 3, padding=1, bias=False)


def _net(
    name: str, blocks: dict[str, Layer], channels: int, in_channels: int, num_classes: int, image_size: Pair
) -> Sequential:
    head = {
        "avgpool": AdaptiveAvgPool2d(1),
        "flatten": Flatten(),
        "classifier": Dense(channels, num_classes),
    }
    return check_image_size(name, Sequential(blocks | head), in_channels, image_size)
