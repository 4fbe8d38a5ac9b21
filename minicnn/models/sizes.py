"""The image sizes that a model can take."""

from __future__ import annotations

from minicnn.backends import Pair
from minicnn.layers import Sequential

LARGEST_LEAST = 512
"""No model here needs images larger than this."""


def check_image_size(name: str, model: Sequential, in_channels: int, image_size: Pair) -> Sequential:
    """The model, for images of this size; its parameters must not depend on it.

    Raises: ValueError naming the smallest size where some layer would have no output
    """
    if not _fits(model, (in_channels, *image_size)):
        least = next(s for s in range(1, LARGEST_LEAST) if _fits(model, (in_channels, s, s)))
        raise ValueError(f"[{name}] image_size: expected at least {least}, got {image_size}")
    model.input_shape = (in_channels, *image_size)
    return model


def _fits(model: Sequential, input_shape: tuple[int, int, int]) -> bool:
    try:
        model.output_shape(input_shape)
    except ValueError:
        return False
    return True
