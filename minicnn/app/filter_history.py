"""filters.safetensors: the first layer's filters after a run's epochs, so that `look` shows how they came.

A tensor is named after its epoch, as in ``epoch_0003``; that of epoch 0 has the weights before training.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from minicnn.app.experiment import Experiment
from minicnn.checkpoint import CheckpointError, read_tensors
from minicnn.files import write_atomically
from minicnn.layers.conv2d import first_filters

FILTERS = "filters.safetensors"
KEPT = 20
"""About as many epochs are kept of a long run, evenly spread."""


def keep(path: Path, experiment: Experiment) -> None:
    """Add the present filters, if an epoch has ended; those of later epochs go.

    Raises: OSError
    """
    from safetensors.numpy import save

    epoch, every = experiment.epoch, math.ceil(experiment.config.epochs / KEPT)
    if experiment.batch or (epoch % every and not experiment.done):
        return
    found = first_filters(experiment.state_dict())
    if found is None:
        return
    kept = [*(pair for pair in _earlier(path) if pair[0] < epoch), (epoch, found[1])]
    write_atomically(path, save({f"epoch_{at:04}": np.ascontiguousarray(weight) for at, weight in kept}))


def read(path: Path) -> list[tuple[int, np.ndarray]]:
    """Epochs and their filters (F,C,KH,KW), in order.

    Raises: CheckpointError naming the file if it is not there, or no such file
    """
    tensors, _ = read_tensors(path)
    shapes = {a.shape for a in tensors.values()}
    sound = all(
        re.fullmatch(r"epoch_\d{4,9}", name) and a.ndim == 4 and a.size and np.isfinite(a).all()
        for name, a in tensors.items()
    )
    if not sound or len(shapes) != 1:
        raise CheckpointError(f"{path}: expected finite filters of one shape, epoch by epoch")
    numbered = {int(name.removeprefix("epoch_")): a for name, a in tensors.items()}
    return sorted(numbered.items())


def _earlier(path: Path) -> list[tuple[int, np.ndarray]]:
    """What the file holds; nothing if it is damaged, since a run does not depend on it."""
    try:
        return read(path) if path.exists() else []
    except CheckpointError:
        return []
