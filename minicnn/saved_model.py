"""A trained model out of its checkpoint."""

from __future__ import annotations

from pathlib import Path

from minicnn import models
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors, load
from minicnn.config import Config
from minicnn.layers import Sequential


def load_model(path: Path, backend: str) -> tuple[Checkpoint, Sequential]:
    """The checkpoint, and the model it holds, bound to a backend with its weights loaded.

    Raises: CheckpointError naming the file if it cannot be used; BackendUnavailable
    """
    saved = load(path)
    try:
        config = Config.from_saved(saved.config)
        model = models.build(
            config.model, in_channels=saved.image_shape[0], num_classes=len(saved.class_names),
            image_size=saved.image_shape[1:],
        )  # fmt: skip
    except ValueError as error:
        raise CheckpointError(f"{path}: its model cannot be made: {error}") from error
    check_tensors(path, saved.model, model.state_shapes())
    model.bind(backend, seed=config.seed)
    model.load_state_dict(saved.model)
    return saved, model
