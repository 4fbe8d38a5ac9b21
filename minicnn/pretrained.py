"""Weights from elsewhere as the starting point of training.

A file is safetensors, minicnn's checkpoints included, or a state dict that torch.save wrote.  Of the latter
torch reads tensors and plain containers only (``weights_only=True``), so no code in it is run.
Training normalises images by its own dataset's mean and deviation, whatever the weights were trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from minicnn import torch_file, weights
from minicnn.checkpoint import CheckpointError, Tensors, load, read_tensors, refuse_not_finite
from minicnn.layers import Sequential


class Taken(NamedTuple):
    """What `init_from` left out, and how it understood the file."""

    new: list[str]
    """Parameters that keep their first values: the head's, where the number of classes differs."""
    ignored: list[str]
    """Tensors of the file that the model has no place for, by design: auxiliary heads."""
    notes: list[str]
    """The dictionary of the file that was chosen and the prefix that was taken off names, in words."""


def init_from(model: Sequential, path: str | Path) -> Taken:
    """Copy in the weights of a file.

    The file may hold a state dict beside other things, and all its names may begin with the prefix of a
    module around the model: see `minicnn.weights.take`.  A last layer for another number of classes keeps
    its own values; batch norms without a count of batches, as in files from before 2018, start theirs at 0.
    All else must fit.

    Raises: CheckpointError naming the file, and the first tensors that are missing, unexpected or of
            another shape; nothing is changed then
    """
    content, mine = _read(Path(path)), model.state_dict()
    try:
        taken = weights.take(content, mine, ignored_prefixes=model.ignored_prefixes, free=_head(model))
    except weights.Misfit as error:
        raise CheckpointError(f"{path}: {error}") from None
    refuse_not_finite(path, taken.state)
    model.load_state_dict(taken.state | {name: mine[name] for name in taken.new})
    return Taken(taken.new, taken.ignored, taken.notes)


def read_state(path: Path) -> Tensors:
    """The tensors of a file by name, as they are there but for 16-bit numbers, which become float32.

    Raises: CheckpointError naming the file if it is not there, not readable, or holds something else
    """
    content = _read(path)
    try:
        state, _ = weights.find_state(content)
        return {name: weights.to_array(name, value) for name, value in state.items()}
    except weights.Misfit as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read(path: Path) -> Any:
    """What a file holds."""
    if path.suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        return load(path).model if "minicnn" in metadata else tensors
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    return torch_file.read(path)


def _head(model: Sequential) -> list[str]:
    """The parameters of the last layer that has some."""
    name, layer = [(name, layer) for name, layer in model.named_layers() if layer.params][-1]
    return [f"{name}.{key}" for key in layer.params]
