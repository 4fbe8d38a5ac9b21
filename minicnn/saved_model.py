"""A trained model out of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from minicnn import models
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors, load
from minicnn.layers import Sequential
from minicnn.schema import check


@dataclass
class _ModelSettings:
    """Those of a checkpoint's settings that say which model its weights are of."""

    model: str
    seed: int


def load_model(path: Path, backend: str) -> tuple[Checkpoint, Sequential]:
    """The checkpoint, and the model it holds, bound to a backend with its weights loaded.

    Raises: CheckpointError naming the file if it cannot be used; BackendUnavailable
    """
    saved = load(path)
    found = {f.name: saved.config[f.name] for f in fields(_ModelSettings) if f.name in saved.config}
    try:
        check(_ModelSettings, found)
        settings = _ModelSettings(**found)
        if settings.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {settings.seed}")
        model = models.build(
            settings.model, in_channels=saved.image_shape[0], num_classes=len(saved.class_names),
            image_size=saved.image_shape[1:],
        )  # fmt: skip
    except ValueError as error:
        raise CheckpointError(f"{path}: its model cannot be made: {error}") from error
    check_tensors(path, saved.model, model.state_shapes())
    model.bind(backend, seed=settings.seed)
    model.load_state_dict(saved.model)
    return saved, model
