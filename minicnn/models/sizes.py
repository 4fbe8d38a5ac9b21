"""The image sizes that a model can take."""

from __future__ import annotations

from minicnn.backends import Pair
from minicnn.layers import Sequential

LARGEST_MINIMUM = 512
"""The smallest size that a model here needs is below this: the search for it ends here."""


def check_image_size(name: str, model: Sequential, in_channels: int, image_size: Pair) -> Sequential:
    """The model, set up for images of this size, on which its parameters' shapes must not depend.

    Raises: ValueError naming the smallest size that works, if some layer would have no output
    """
    if not _fits(model, (in_channels, *image_size)):
        least = next(s for s in range(1, LARGEST_MINIMUM) if _fits(model, (in_channels, s, s)))
        raise ValueError(f"[{name}] image_size: expected at least {least}, got {image_size}")
    model.input_shape = (in_channels, *image_size)
    return model


def _fits(model: Sequential, input_shape: tuple[int, int, int]) -> bool:
    try:
        model.output_shape(input_shape)
    except ValueError:
        return False
    return True
