"""Weights from elsewhere as the starting point of training.

A file is safetensors, minicnn's checkpoints included, or a state dict that torch.save wrote.  Of the latter
torch reads tensors and plain containers only (``weights_only=True``), so no code in it is run.
Training normalises images by its own dataset's mean and deviation, whatever the weights were trained with.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicnn.checkpoint import CheckpointError, Tensors, load, read_tensors, refuse_not_finite
from minicnn.layers import Sequential

SHOWN = 3
"""Names that an error lists."""

_WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts save a state dict beside other things."""


class Taken(NamedTuple):
    """What `init_from` left out."""

    new: list[str]
    """Parameters that keep their first values: the head's, where the number of classes differs."""
    ignored: list[str]
    """Tensors of the file that the model has no place for, by design: auxiliary heads."""


def init_from(model: Sequential, path: str | Path) -> Taken:
    """Copy in the weights of a file.

    A last layer for another number of classes keeps its own values; batch norms without a count of
    batches, as in files from before 2018, start theirs at 0.  All else must fit.

    Raises: CheckpointError naming the file, and the first tensors that are missing, unexpected or of
            another shape; nothing is changed then
    """
    state, mine = read_state(Path(path)), model.state_dict()
    refuse_not_finite(path, state)
    optional = {key for key in mine if key.endswith("num_batches_tracked")}
    missing = [key for key in mine if key not in state and key not in optional]
    unexpected = [key for key in state if key not in mine and not key.startswith(model.ignored_prefixes)]
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"no {_first(missing)}")
        if unexpected:
            parts.append(f"{_first(unexpected)}, which the model has not")
        raise CheckpointError(f"{path} does not fit the model: it has {'; '.join(parts)}")
    differing = [key for key in mine if key in state and state[key].shape != mine[key].shape]
    head = _head(model)
    new = [key for key in differing if key in head and state[key].shape[1:] == mine[key].shape[1:]]
    wrong = [
        f"{key}: expected shape {mine[key].shape}, got {state[key].shape}"
        for key in differing
        if key not in new
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit the model: {_first(wrong)}")
    return Taken(new, model.load_state_dict(mine | state | {key: mine[key] for key in new}))


def read_state(path: Path) -> Tensors:
    """The tensors of a file by name.

    Raises: CheckpointError naming the file if it is not there, not readable, or holds something else
    """
    if path.suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        return load(path).model if "minicnn" in metadata else tensors
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    return _read_torch(path)


def _read_torch(path: Path) -> Tensors:
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path}: only torch reads this format: pip install torch, or give a .safetensors file"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles; one that cannot be read raises
            # From memory: reading from a file allocates all that a false length in it claims.
            file = io.BytesIO(path.read_bytes())
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, since the file may be anything
        why = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is torn, or not a state dict of torch's: {why}") from None
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: expected a state dict, got {_kind(content)}")
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: expected a state dict of tensors, got {_kind(value)} under {name}"
            )
    return {str(name): _to_numpy(tensor) for name, tensor in content.items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    """A host array.  NumPy has no bfloat16, so 16-bit numbers become float32."""
    half = tensor.is_floating_point() and tensor.element_size() < 4
    array: np.ndarray = (tensor.float() if half else tensor).detach().numpy()
    return array


def _head(model: Sequential) -> list[str]:
    """The parameters of the last layer that has some."""
    name, layer = [(name, layer) for name, layer in model.named_layers() if layer.params][-1]
    return [f"{name}.{key}" for key in layer.params]


def _first(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{', '.join(items[:SHOWN])}{more}"


def _kind(value: Any) -> str:
    return "an empty one" if isinstance(value, Mapping) and not value else type(value).__name__
