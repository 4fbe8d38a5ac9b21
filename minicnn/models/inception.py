"""Inception v3 as in torchvision.

Source: Szegedy et al. 2015, arXiv:1512.00567.  Torch: torchvision.models.inception_v3.
"""

from __future__ import annotations

from minicnn.backends import Pair
from minicnn.layers import AvgPool2d, Layer, MaxPool2d, Parallel, Sequential
from minicnn.models.inception_parts import ConvUnit
from minicnn.models.sizes import check_image_size

_unit = ConvUnit(std=0.1)


def inception_v3(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Eleven inception blocks of five kinds, for images of at least 75x75; the paper's are 299x299.

    The auxiliary head AuxLogits is left out; `load_state_dict` ignores its keys.  The model takes its input
    as it is, like torchvision's with ``transform_input=False``.  torchvision's pretrained weights expect
    ``transform_input=True``, a change of normalisation before the first layer: the caller must apply it.
    """
    layers: dict[str, Layer] = {
        "Conv2d_1a_3x3": _unit(in_channels, 32, 3, stride=2),
        "Conv2d_2a_3x3": _unit(32, 32, 3),
        "Conv2d_2b_3x3": _unit(32, 64, 3, padding=1),
        "maxpool1": MaxPool2d(3, stride=2),
        "Conv2d_3b_1x1": _unit(64, 80, 1),
        "Conv2d_4a_3x3": _unit(80, 192, 3),
        "maxpool2": MaxPool2d(3, stride=2),
        "Mixed_5b": _inception_a(192, 32),
        "Mixed_5c": _inception_a(256, 64),
        "Mixed_5d": _inception_a(288, 64),
        "Mixed_6a": _inception_b(288),
        "Mixed_6b": _inception_c(768, 128),
        "Mixed_6c": _inception_c(768, 160),
        "Mixed_6d": _inception_c(768, 160),
        "Mixed_6e": _inception_c(768, 192),
        "Mixed_7a": _inception_d(768),
        "Mixed_7b": _inception_e(1280),
        "Mixed_7c": _inception_e(2048),
        **_unit.head(2048, num_classes, dropout=0.5),
    }
    model = Sequential(layers)
    model.ignored_prefixes = ("AuxLogits.",)
    return check_image_size("inception_v3", model, in_channels, image_size)


def _inception_a(channels: int, pooled: int) -> Parallel:
    """Branches: 1x1; 5x5; two 3x3; average pool."""
    return _join(
        {"branch1x1": _unit(channels, 64, 1)},
        {
            "branch5x5_1": _unit(channels, 48, 1),
            "branch5x5_2": _unit(48, 64, 5, padding=2),
        },
        {
            "branch3x3dbl_1": _unit(channels, 64, 1),
            "branch3x3dbl_2": _unit(64, 96, 3, padding=1),
            "branch3x3dbl_3": _unit(96, 96, 3, padding=1),
        },
        _average(channels, pooled),
    )


def _inception_b(channels: int) -> Parallel:
    """Halves the map.  Branches: 3x3; two 3x3; max-pool."""
    return _join(
        {"branch3x3": _unit(channels, 384, 3, stride=2)},
        {
            "branch3x3dbl_1": _unit(channels, 64, 1),
            "branch3x3dbl_2": _unit(64, 96, 3, padding=1),
            "branch3x3dbl_3": _unit(96, 96, 3, stride=2),
        },
        {"branch_pool": MaxPool2d(3, stride=2)},
    )


def _inception_c(channels: int, c7: int) -> Parallel:
    """Branches: 1x1; 1x7, 7x1; 7x1, 1x7, 7x1, 1x7; average pool."""
    return _join(
        {"branch1x1": _unit(channels, 192, 1)},
        {
            "branch7x7_1": _unit(channels, c7, 1),
            "branch7x7_2": _row(c7, c7, 7),
            "branch7x7_3": _column(c7, 192, 7),
        },
        {
            "branch7x7dbl_1": _unit(channels, c7, 1),
            "branch7x7dbl_2": _column(c7, c7, 7),
            "branch7x7dbl_3": _row(c7, c7, 7),
            "branch7x7dbl_4": _column(c7, c7, 7),
            "branch7x7dbl_5": _row(c7, 192, 7),
        },
        _average(channels, 192),
    )


def _inception_d(channels: int) -> Parallel:
    """Halves the map.  Branches: 3x3; 1x7, 7x1, 3x3; max-pool."""
    return _join(
        {
            "branch3x3_1": _unit(channels, 192, 1),
            "branch3x3_2": _unit(192, 320, 3, stride=2),
        },
        {
            "branch7x7x3_1": _unit(channels, 192, 1),
            "branch7x7x3_2": _row(192, 192, 7),
            "branch7x7x3_3": _column(192, 192, 7),
            "branch7x7x3_4": _unit(192, 192, 3, stride=2),
        },
        {"branch_pool": MaxPool2d(3, stride=2)},
    )


def _inception_e(channels: int) -> Parallel:
    """Branches: 1x1; 1x3 beside 3x1; 3x3, then 1x3 beside 3x1; average pool."""
    return _join(
        {"branch1x1": _unit(channels, 320, 1)},
        {
            "branch3x3_1": _unit(channels, 384, 1),
            "": _join({"branch3x3_2a": _row(384, 384, 3)}, {"branch3x3_2b": _column(384, 384, 3)}),
        },
        {
            "branch3x3dbl_1": _unit(channels, 448, 1),
            "branch3x3dbl_2": _unit(448, 384, 3, padding=1),
            "": _join({"branch3x3dbl_3a": _row(384, 384, 3)}, {"branch3x3dbl_3b": _column(384, 384, 3)}),
        },
        _average(channels, 192),
    )


def _join(*branches: dict[str, Layer]) -> Parallel:
    """The branches' outputs side by side; the names of their layers stay as they are."""
    return Parallel(*(Sequential(branch) for branch in branches), flat=True)


def _average(channels: int, width: int) -> dict[str, Layer]:
    return {
        "average": AvgPool2d(3, stride=1, padding=1),
        "branch_pool": _unit(channels, width, 1),
    }


def _row(channels: int, width: int, length: int) -> Sequential:
    return _unit(channels, width, (1, length), padding=(0, length // 2))


def _column(channels: int, width: int, length: int) -> Sequential:
    return _unit(channels, width, (length, 1), padding=(length // 2, 0))
