"""Operations over the shards of a process, side by side: a value is the list of the shards' arrays.

The executor of `minicnn.graph.run` passes values on and looks into none, so it runs such a graph as any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minicnn.backends import Array, Backend
from minicnn.distributed.step import generator_of
from minicnn.graph.operations import Gradients, Needs, Operation
from minicnn.layers.layer import RandomLayer


class EachShard:
    """What the executor asks of a backend, for values that are lists of the shards' arrays."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.multiplying = backend, backend.multiplying

    def add_forward(self, a: list[Array], b: list[Array]) -> list[Array]:
        """The sum of each shard's pair."""
        return [self.backend.add_forward(*pair) for pair in zip(a, b, strict=True)]


class Draws:
    """The generators of a step: one for each random layer and shard of this process, in their order."""

    def __init__(self, step: int, shards: list[int]) -> None:
        self.step, self.shards = step, shards
        self._made: dict[tuple[RandomLayer, int], np.random.Generator] = {}

    @contextmanager
    def of(self, layers: list[RandomLayer], shard: int) -> Iterator[None]:
        """Within it, these layers draw for a shard, and go on where they stopped."""
        own = [layer.generator for layer in layers]
        try:
            for layer in layers:
                if (layer, shard) not in self._made:
                    self._made[layer, shard] = generator_of(layer.generator, self.step, shard)
                layer.generator = self._made[layer, shard]
            yield
        finally:
            for layer, generator in zip(layers, own, strict=True):
                layer.generator = generator


class OverShards(Operation):
    """An operation, done for each shard of this process."""

    def __init__(self, operation: Operation, draws: Draws) -> None:
        self.op, self.layers, self.owner = operation.op, operation.layers, operation.owner
        self.operation, self.draws = operation, draws
        below = [layer for top in self.layers for _, layer in top.named_layers()]
        self.random = [layer for layer in below if isinstance(layer, RandomLayer)]

    def output_shape(self, inputs: list[Any]) -> Any:
        return self.operation.output_shape(inputs)

    def forward(self, backend: Any, inputs: Sequence[Any], training: bool) -> tuple[Any, Any]:
        results = []
        for shard, own in zip(self.draws.shards, zip(*inputs, strict=True), strict=True):
            with self.draws.of(self.random, shard):
                results.append(self.operation.forward(backend.backend, own, training))
        return [y for y, _ in results], [saved for _, saved in results]

    def backward(self, backend: Any, dy: Any, saved: Any, needs: Needs) -> Gradients:
        results, gradients = [], []
        for upstream, kept in zip(dy, saved, strict=True):
            results.append(self.operation.backward(backend.backend, upstream, kept, needs))
            if self.owner is not None:
                gradients.append(self.owner.grads)
        if self.owner is not None:
            self.owner.grads = {name: [own[name] for own in gradients] for name in gradients[0]}
        return tuple(list(column) for column in zip(*results, strict=True))
