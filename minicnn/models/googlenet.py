"""GoogLeNet as in torchvision: with batch norm, and 3x3 convolutions where the paper has 5x5.

Source: Szegedy et al. 2014, arXiv:1409.4842.  Torch: torchvision.models.googlenet.
"""

from __future__ import annotations

from minicnn.backends import Pair
from minicnn.layers import Layer, MaxPool2d, Parallel, Sequential
from minicnn.models.inception_parts import ConvUnit
from minicnn.models.sizes import check_image_size

_unit = ConvUnit(std=0.01)


def googlenet(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Nine inception blocks.

    The auxiliary heads aux1 and aux2 are left out; `load_state_dict` ignores their keys.  The model takes
    its input as it is, like torchvision's with ``transform_input=False``.  torchvision's pretrained weights
    expect ``transform_input=True``, a change of normalisation before conv1: the caller must apply it.
    """
    layers: dict[str, Layer] = {
        "conv1": _unit(in_channels, 64, 7, stride=2, padding=3),
        "maxpool1": _halve(3),
        "conv2": _unit(64, 64, 1),
        "conv3": _unit(64, 192, 3, padding=1),
        "maxpool2": _halve(3),
        "inception3a": _inception(192, 64, 96, 128, 16, 32, 32),
        "inception3b": _inception(256, 128, 128, 192, 32, 96, 64),
        "maxpool3": _halve(3),
        "inception4a": _inception(480, 192, 96, 208, 16, 48, 64),
        "inception4b": _inception(512, 160, 112, 224, 24, 64, 64),
        "inception4c": _inception(512, 128, 128, 256, 24, 64, 64),
        "inception4d": _inception(512, 112, 144, 288, 32, 64, 64),
        "inception4e": _inception(528, 256, 160, 320, 32, 128, 128),
        "maxpool4": _halve(2),
        "inception5a": _inception(832, 256, 160, 320, 32, 128, 128),
        "inception5b": _inception(832, 384, 192, 384, 48, 128, 128),
        **_unit.head(1024, num_classes, dropout=0.2),
    }
    model = Sequential(layers)
    model.ignored_prefixes = ("aux1.", "aux2.")
    return check_image_size("googlenet", model, in_channels, image_size)


def _halve(kernel_size: int) -> MaxPool2d:
    return MaxPool2d(kernel_size, stride=2, ceil_mode=True)


def _inception(
    channels: int, width1: int, reduced3: int, width3: int, reduced5: int, width5: int, pooled: int
) -> Parallel:
    """Four branches: 1x1; 1x1, 3x3; 1x1 and what was 5x5 in the paper; pool, 1x1."""
    return Parallel(
        {
            "branch1": _unit(channels, width1, 1),
            "branch2": Sequential(_unit(channels, reduced3, 1), _unit(reduced3, width3, 3, padding=1)),
            "branch3": Sequential(_unit(channels, reduced5, 1), _unit(reduced5, width5, 3, padding=1)),
            "branch4": Sequential(
                MaxPool2d(3, stride=1, padding=1, ceil_mode=True), _unit(channels, pooled, 1)
            ),
        }
    )
