"""What is summed over the shards of a batch, side by side in one row of numbers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minicnn.backends import Array
from minicnn.layers.layer import Layer

NUMBERS = ("loss", "correct", "flag")
"""What follows the arrays: the mean loss, the number of right answers, how many processes raised a flag."""


class Layout:
    """The places of a model's gradients, of its buffers, and of three numbers in a row.

    Buffers are the running statistics of batch norms.  Those of whole numbers count batches: they are alike
    in all shards, and have no place.  Neither have frozen layers.
    """

    def __init__(self, model: Layer) -> None:
        self.model = model
        buffers = model.named_buffers(trainable_only=True)
        self.buffers = {name: a for name, a in buffers.items() if "float" in str(a.dtype)}
        self.counters = {name: a for name, a in buffers.items() if name not in self.buffers}
        self._counted: dict[str, Array] = {}
        shapes = [a.shape for a in model.named_parameters(trainable_only=True).values()]
        self.gradients_end = sum(prod(shape) for shape in shapes)
        self.arrays_end = self.gradients_end + sum(prod(a.shape) for a in self.buffers.values())

    def row(self) -> Array:
        """A row for one shard, with zeros everywhere."""
        return self.model.backend.asarray(np.zeros(self.arrays_end + len(NUMBERS), self.model.dtype))

    def fill(self, row: Array, buffers: dict[str, Array], share: float, share_of_images: float) -> None:
        """Put in the model's gradients and a shard's buffers, scaled by the shard's shares of the batch."""
        start = 0
        gradients = self.model.named_gradients()
        for name in self.model.named_parameters(trainable_only=True):
            start = _put(row, start, gradients[name])
        row[: self.gradients_end] *= share
        for name in self.buffers:
            start = _put(row, start, buffers[name])
        row[self.gradients_end : self.arrays_end] *= share_of_images
        self._counted = {name: buffers[name] for name in self.counters}

    def set_numbers(self, row: Array, loss: float, correct: int, flag: bool) -> None:
        """Put in the three numbers."""
        for place, value in enumerate((loss, correct, flag), self.arrays_end):
            row[place] = value

    def numbers(self, row: Array) -> tuple[float, int, bool]:
        """The three numbers: loss, right answers, whether a flag was raised."""
        loss, correct, flags = (float(value) for value in row[self.arrays_end :])
        return loss, int(correct) if np.isfinite(correct) else 0, flags > 0

    def take(self, row: Array) -> None:
        """Give the model the gradients and buffers of a whole batch."""
        gradients, start = _gradients(self.model), 0
        for target in [*gradients, *self.buffers.values()]:
            start = _get(row, start, target)
        for name, counted in self._counted.items():
            self.counters[name][...] = counted


def _gradients(model: Layer) -> list[Array]:
    """The model's gradients, in the order of its parameters; where a layer has none yet, new ones."""
    found: dict[int, Array] = {}
    for _, layer in model.named_layers():
        if not layer.requires_grad:
            continue
        for name, parameter in layer.params.items():
            if name not in layer.grads:
                zeros = np.zeros(tuple(parameter.shape), model.dtype)
                layer.grads[name] = model.backend.asarray(zeros)
            found[id(parameter)] = layer.grads[name]
    return list(found.values())


def _put(row: Array, start: int, array: Array) -> int:
    """Copy an array into a row; where it ends there."""
    flat = _flat(array)
    end: int = start + prod(array.shape)
    row[start:end] = flat
    return end


def _get(row: Array, start: int, array: Array) -> int:
    """The inverse of `_put`."""
    end: int = start + prod(array.shape)
    lying = _as_it_lies(array)
    lying[...] = row[start:end].reshape(lying.shape)
    return end


def _flat(array: Array) -> Array:
    return _as_it_lies(array).reshape(-1)


def _as_it_lies(array: Any) -> Array:
    """The array with its axes in the order in which channels-last filters lie in memory."""
    if hasattr(array, "permute") and array.ndim == 4 and not array.is_contiguous():
        return array.permute(0, 2, 3, 1)
    return array
