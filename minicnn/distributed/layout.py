"""What is summed over the shards of a batch, side by side in one row of numbers."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends import Array
from minicnn.layers.layer import Layer

NUMBERS = ("loss", "correct", "flag")
"""What follows the arrays: the mean loss, the number of right answers, how many processes raised a flag."""

LARGE = 1 << 16
"""A gradient of so many numbers is summed where it lies: its copy would take longer than a message."""

BUCKET = 1 << 18
"""Smaller ones are summed together, at least so many numbers: fewer take hardly less time."""


class Parameter(NamedTuple):
    """A layer that learns, its name for a parameter, and the place of that one's gradient in a row."""

    layer: Layer
    name: str
    place: slice


class Bucket(NamedTuple):
    """A part of a row that is summed at once: one large gradient where it lies, or several small ones."""

    place: slice
    parameters: list[Parameter]
    is_large: bool = False


class Layout:
    """The places of a model's gradients, of its buffers, and of three numbers in a row.

    Large gradients come first, then the others, both in the order in which the backward pass has them.
    Buffers are the running statistics of batch norms.  Those of whole numbers count batches: they are alike
    in all shards, and have no place.  Neither have frozen layers, nor any buffers without ``with_buffers``.
    """

    def __init__(self, model: Layer, *, with_buffers: bool = True) -> None:
        self.model = model
        self.parameters = _backward(model)
        buffers = model.named_buffers(trainable_only=True) if with_buffers else {}
        self.buffers = {name: a for name, a in buffers.items() if "float" in str(a.dtype)}
        self.counters = {name: a for name, a in buffers.items() if name not in self.buffers}
        self._counted: dict[str, Array] = {}
        self.gradients_end = max((parameter.place.stop for parameter in self.parameters), default=0)
        self.arrays_end = self.gradients_end + sum(prod(a.shape) for a in self.buffers.values())
        self.length = self.arrays_end + len(NUMBERS)
        self.buckets: list[Bucket] = []
        """In the order in which the backward pass fills them."""
        small: list[Parameter] = []
        for parameter in self.parameters:
            if parameter.place.stop - parameter.place.start >= LARGE:
                self.buckets.append(Bucket(parameter.place, [parameter], is_large=True))
                continue
            small.append(parameter)
            place = slice(small[0].place.start, parameter.place.stop)
            if place.stop - place.start >= BUCKET:
                self.buckets.append(Bucket(place, small))
                small = []
        start = small[0].place.start if small else self.gradients_end
        self.last = Bucket(slice(start, self.length), small)
        """The gradients of the first layers, with all that is no gradient."""

    def row(self) -> Array:
        """A row for one shard, with zeros everywhere."""
        return self.model.backend.asarray(np.zeros(self.length, self.model.dtype))

    def put_gradients(self, row: Array, parameters: list[Parameter] | None = None) -> None:
        """Put in all gradients of the model, or those of some parameters."""
        for layer, name, place in self.parameters if parameters is None else parameters:
            row[place] = _as_it_lies(layer.grads[name]).reshape(-1)

    def in_its_own_place(self, parameter: Parameter) -> Array:
        """A gradient as one row of numbers in its own memory, which is the model's from now on."""
        grads, name = parameter.layer.grads, parameter.name
        lying = _as_it_lies(grads[name])
        flat = lying.reshape(-1)
        grads[name] = _shaped(flat, lying, grads[name])
        return flat

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
        loss, correct, flags = row[self.arrays_end :].tolist()
        return loss, int(correct) if np.isfinite(correct) else 0, flags > 0

    def take(self, row: Array, parameters: list[Parameter]) -> None:
        """Give the model these gradients of a whole batch, as parts of the row, and its buffers."""
        for layer, name, place in parameters:
            like = layer.grads.get(name, layer.params[name])  # a process without images has none
            layer.grads[name] = _shaped(row[place], _as_it_lies(like), like)
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


def _shaped(flat: Array, lying: Array, like: Array) -> Any:
    """A row of numbers in the shape of the array that ``lying`` shows as it lies in memory."""
    part: Any = flat.reshape(lying.shape)
    return part if lying is like else part.permute(0, 3, 1, 2)


def _backward(model: Layer) -> list[Parameter]:
    """The parameters that learn, from the last one to the first; the large ones' places come first."""
    layers = list(dict.fromkeys(layer for _, layer in model.named_layers() if layer.requires_grad))
    sizes = [(layer, name, prod(a.shape)) for layer in layers for name, a in layer.params.items()][::-1]
    ends = {True: 0, False: sum(size for _, _, size in sizes if size >= LARGE)}
    found = []
    for layer, name, size in sizes:
        start = ends[size >= LARGE]
        ends[size >= LARGE] = start + size
        found.append(Parameter(layer, name, slice(start, start + size)))
    return found
