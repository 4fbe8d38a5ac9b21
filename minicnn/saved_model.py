"""A trained model out of its checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from minicnn import models
from minicnn.checkpoint import Checkpoint, CheckpointError, check_tensors, load
from minicnn.graph import build
from minicnn.layers import Sequential
from minicnn.precision import PRECISIONS
from minicnn.schema import check, short


@dataclass
class ModelSettings:
    """Those of a checkpoint's settings that say which model its weights are of."""

    model: str
    seed: int
    precision: str = "float32"


MOST_MEMORY = 4 << 30
"""Bytes that a checkpoint's model may need for one image, and that `images_at_once` stays below."""


def load_model(path: Path, backend: str, precision: str | None = None) -> tuple[Checkpoint, Sequential]:
    """The checkpoint, and the model it holds, bound to a backend with its weights loaded.

    It computes in ``precision``, or as in training: in float32 where the backend does not have tf32.

    Raises: CheckpointError naming the file if it cannot be used; BackendUnavailable
    """
    saved = load(path)
    model, settings = check_model(path, saved)
    model.bind(backend, seed=settings.seed)
    model.load_state_dict(saved.model)
    trained = "float32" if settings.precision == "tf32" and backend != "cuda" else settings.precision
    model.set_precision(precision or trained)
    return saved, model


def check_model(path: Path, saved: Checkpoint) -> tuple[Sequential, ModelSettings]:
    """The model that a checkpoint says it is of, without parameters yet, and the settings that say so.

    Raises: CheckpointError naming the file if there is no such model, if the tensors are of another, or if
            the model would need more than MOST_MEMORY for an image of the shape that the file claims
    """
    found = {f.name: saved.config[f.name] for f in fields(ModelSettings) if f.name in saved.config}
    try:
        check(ModelSettings, found)
        settings = ModelSettings(**found)
        if settings.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {settings.seed}")
        if settings.precision not in PRECISIONS:
            expected = ", ".join(PRECISIONS)
            raise ValueError(f"precision: expected one of {expected}, got {short(settings.precision)}")
        model = models.build(
            settings.model, in_channels=saved.image_shape[0], num_classes=len(saved.class_names),
            image_size=saved.image_shape[1:],
        )  # fmt: skip
    except ValueError as error:
        raise CheckpointError(f"{path}: its model cannot be made: {error}") from error
    check_tensors(path, saved.model, model.state_shapes())
    needed = memory_of_an_image(model, saved.image_shape)
    if needed > MOST_MEMORY:
        raise CheckpointError(
            f"{path}: image_shape: expected images for which {settings.model} needs at most "
            f"{MOST_MEMORY >> 30} GiB, got {saved.image_shape}: one needs {needed / 2**30:,.1f} GiB"
        )
    return model, settings


def memory_of_an_image(model: Sequential, shape: tuple[int, int, int]) -> int:
    """Bytes that the operation with the largest arrays needs to predict one image (C,H,W), in float32.

    They are its inputs, its output and, of a convolution, the patches that the numpy backend copies out.
    """
    graph = build(model)
    shapes = graph.shapes(shape)
    most = 0
    for node in graph:
        inputs = [shapes[value] for value in node.inputs]
        output = shapes[node.output]
        patches = node.operation.multiply_adds(inputs) // output[0]
        most = max(most, sum(map(math.prod, inputs)) + math.prod(output) + patches)
    return 4 * most


def images_at_once(model: Sequential, shape: tuple[int, int, int], wanted: int = 256) -> int:
    """How many images (C,H,W) to predict together: ``wanted``, or as many as stay below MOST_MEMORY."""
    return max(1, min(wanted, MOST_MEMORY // memory_of_an_image(model, shape)))
