"""A trained model out of its checkpoint."""

from __future__ import annotations

from pathlib import Path

from minicnn import models
from minicnn.checkpoint import Checkpoint, CheckpointError, load
from minicnn.config import Config
from minicnn.experiment import load_weights
from minicnn.fusion import fuse
from minicnn.layers import Sequential


def load_model(path: Path, backend: str) -> tuple[Checkpoint, Sequential]:
    """The checkpoint, and the model it holds, bound to a backend with its weights loaded.

    Raises: CheckpointError naming the file if it cannot be used; BackendUnavailable
    """
    saved = load(path)
    try:
        config = Config(**saved.config)
        model = models.create(
            config.model, in_channels=saved.image_shape[0], num_classes=len(saved.class_names),
            image_size=saved.image_shape[1:], backend=backend, seed=config.seed,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its model cannot be made: {error}") from error
    load_weights(path, model, saved.model)
    if not config.no_fuse:
        fuse(model)
    return saved, model
