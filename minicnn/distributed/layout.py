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
    in all shards, and have no place.  Neither have frozen layers, nor any buffers without ``with_buffers``.
    """

    def __init__(self, model: Layer, *, with_buffers: bool = True) -> None:
        self.model = model
        self.parameters: list[tuple[Layer, str, slice]] = []
        """Owner, the owner's name for it, and the place of each gradient."""
        end = 0
        for layer in {
            id(layer): layer for _, layer in model.named_layers() if layer.requires_grad
        }.values():
            for name, array in layer.params.items():
                start, end = end, end + prod(array.shape)
                self.parameters.append((layer, name, slice(start, end)))
        buffers = model.named_buffers(trainable_only=True) if with_buffers else {}
        self.buffers = {name: a for name, a in buffers.items() if "float" in str(a.dtype)}
        self.counters = {name: a for name, a in buffers.items() if name not in self.buffers}
        self._counted: dict[str, Array] = {}
        self.gradients_end = end
        self.arrays_end = end + sum(prod(a.shape) for a in self.buffers.values())
        self.length = self.arrays_end + len(NUMBERS)

    def row(self) -> Array:
        """A row for one shard, with zeros everywhere."""
        return self.model.backend.asarray(np.zeros(self.length, self.model.dtype))

    def put_gradient(self, row: Array, layer: Layer, name: str, place: slice, share: float) -> None:
        """Put in one gradient, scaled by the share that its shard has of the batch's loss."""
        if share == 0:  # no label of the shard counts, so that its loss is 0 / 0
            row[place] = 0
            return
        row[place] = _as_it_lies(layer.grads[name]).reshape(-1)
        row[place] *= share

    def put_gradients(self, row: Array, share: float) -> None:
        """Put in all gradients of the model."""
        for layer, name, place in self.parameters:
            self.put_gradient(row, layer, name, place, share)

    def put_buffers(self, row: Array, buffers: dict[str, Array], share: float) -> None:
        """Put in a shard's buffers, scaled by its share of the images."""
        start = self.gradients_end
        for name in self.buffers:
            end = start + prod(buffers[name].shape)
            row[start:end] = buffers[name].reshape(-1)
            start = end
        row[self.gradients_end : self.arrays_end] *= share
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
        for layer, name, place in self.parameters:
            if name not in layer.grads:  # this process had no image
                zeros = np.zeros(tuple(layer.params[name].shape), self.model.dtype)
                layer.grads[name] = self.model.backend.asarray(zeros)
            lying = _as_it_lies(layer.grads[name])
            lying[...] = row[place].reshape(lying.shape)
        start = self.gradients_end
        for array in self.buffers.values():
            end = start + prod(array.shape)
            array[...] = row[start:end].reshape(array.shape)
            start = end
        for name, counted in self._counted.items():
            self.counters[name][...] = counted


def _as_it_lies(array: Any) -> Array:
    """The array with its axes in the order in which channels-last filters lie in memory."""
    if hasattr(array, "permute") and array.ndim == 4 and not array.is_contiguous():
        return array.permute(0, 2, 3, 1)
    return array
