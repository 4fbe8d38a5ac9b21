"""Whether a run fits into memory, told before anything is allocated for it."""

from __future__ import annotations

import math

from minicnn import data, models
from minicnn.app.prediction import IMAGES_AT_ONCE
from minicnn.app.settings import Config
from minicnn.memory import check_memory, training_memory


def check_training_memory(config: Config, dataset: data.Dataset) -> None:
    """Refuse a run that takes more memory than there is: for a step of training, or for the test images.

    A card's memory is not looked at, since only its driver knows what it has left.

    Raises: NotEnoughMemory telling how much it would take and what takes less
    """
    if config.backend == "cuda":
        return
    channels, height, width = dataset.train.x.shape[1:]
    shape = (channels, height, width)
    batch = min(config.batch_size, len(dataset.train))
    model = models.build(
        config.model, in_channels=channels, num_classes=len(dataset.class_names), image_size=(height, width)
    )
    size, scaled = "x".join(map(str, shape)), "--image-size N scales the images"
    if not config.freeze:  # layers are frozen only once they have weights, and keep nothing then
        step, what = (
            training_memory(model, shape, batch, config.precision),
            f"training {config.model} on {batch} images of {size}",
        )
        check_memory(step, f"{what} at a time", f"{scaled}, --batch-size N takes fewer at a time")
    tested = min(IMAGES_AT_ONCE, len(dataset.test))
    normalized = 4 * tested * math.prod(shape)
    check_memory(
        normalized, f"testing on {tested} images of {size}", f"{scaled}, --limit-test N takes fewer"
    )
