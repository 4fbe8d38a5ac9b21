"""The gradients of a batch that is cut into shards, with the same bits on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minicnn.backends import Array
from minicnn.distributed.group import Group
from minicnn.distributed.layout import Layout
from minicnn.distributed.shards import Shards
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.layer import Layer, RandomLayer

if TYPE_CHECKING:
    from minicnn.trainer import Trainer

IGNORED = -100
"""The label that the loss passes over."""


class ShardedStep:
    """Computes this process's shards of a batch one after another, and sums those of all.

    A shard's gradients count by its share of the batch, so their sum is the gradient of the batch's mean
    loss.  They are added pairwise in a binary tree whose leaves are the shards.  A sum of two IEEE numbers
    does not depend on their order, so neither do the bits depend on which process adds which branch.

    Batch norms normalise each shard by its own statistics.  A shard moves a copy of the running statistics,
    and the mean of the copies, each by its share of the images, is the new value.  A random layer draws for
    each shard from a generator of its own, which follows from the layer, the step and the shard.
    """

    def __init__(self, trainer: Trainer, shards: Shards, group: Group) -> None:
        self.trainer, self.shards, self.group = trainer, shards, group
        self.layout = Layout(trainer.model)
        self._rows: list[Array] = []

    def check(self, images: int) -> None:
        """Refuse a batch of so many images whose shards batch norm cannot learn from.

        Raises: ValueError
        """
        smallest = images // self.shards.count
        layers = [layer for _, layer in self.trainer.model.named_layers()]
        if smallest < 2 and any(isinstance(a, BatchNorm2d) and a.requires_grad for a in layers):
            raise ValueError(
                f"[shards] expected at least 2 images in each of {self.shards.count} shards, since batch "
                f"norm cannot learn from one alone, got a batch of {images}: choose another batch size, or "
                "fewer shards"
            )

    def compute(
        self, x: Array, y: Array, labels: NDArray[Any], meanwhile: Callable[[], object] | None
    ) -> tuple[float, int]:
        """Set the gradients of the whole batch, and move the running statistics.

        Args:    x, y the rows of this process · labels those of the whole batch (N,) or (N,K)
        Returns: the mean loss and the number of right answers of the whole batch
        """
        self.check(len(labels))
        cut = self.shards.cut(len(labels))
        shares = self._shares(labels, cut)
        first = cut[self.shards.own.start].start
        own = self.shards.own

        def one(shard: int, row: Array) -> None:
            rows = slice(cut[shard].start - first, cut[shard].stop - first)
            last = meanwhile if shard == own[-1] else None
            self._shard(shard, row, x[rows], y[rows], (shares[shard], len(y[rows]) / len(labels)), last)

        row = self._sum(own, one)
        self.group.add(row)
        loss, correct, flagged = self.layout.numbers(row)
        self.group.note(flagged)
        self.layout.take(row)
        return loss, correct

    def _sum(self, shards: range, one: Callable[[int, Array], None], depth: int = 0) -> Array:
        """The sum of these shards' rows, pairwise."""
        if len(shards) == 1:
            row = self._row(depth)
            one(shards[0], row)
            return row
        half = len(shards) // 2
        left = self._sum(shards[:half], one, depth)
        left += self._sum(shards[half:], one, depth + 1)
        return left

    def _row(self, depth: int) -> Array:
        """A row to write to: that of the depth in the tree, since no two branches of one depth wait."""
        while len(self._rows) <= depth:
            self._rows.append(self.layout.row())
        row = self._rows[depth]
        row[:] = 0
        return row

    def _shard(
        self, shard: int, row: Array, x: Array, y: Array, shares: tuple[float, float],
        meanwhile: Callable[[], object] | None,
    ) -> None:  # fmt: skip
        """Fill the row of a shard; one without images stays zero."""
        trainer, loss, correct = self.trainer, 0.0, 0
        if len(y):
            with _of_shard(trainer.model, trainer.optimizer.steps, shard):
                loss = trainer.compute_gradients(x, y, meanwhile)
                correct = trainer.correct
                buffers = trainer.model.named_buffers(trainable_only=True)
            self.layout.fill(row, buffers, *shares)
        flag = self.group.flag and shard == self.shards.own[0]
        self.layout.set_numbers(row, loss * shares[0], correct, flag)

    def _shares(self, labels: NDArray[Any], cut: list[slice]) -> list[float]:
        """Which share of the batch's mean loss each shard has; see F.cross_entropy's reduction."""
        if labels.ndim > 1:
            return [len(labels[rows]) / len(labels) for rows in cut]
        counted = labels != IGNORED
        weights = counted.astype(np.float64)
        if self.trainer.class_weight is not None:
            of_class = np.asarray(self.trainer.backend.to_numpy(self.trainer.class_weight), np.float64)
            weights[counted] = of_class[labels[counted]]
        return [float(weights[rows].sum() / weights.sum()) for rows in cut]


@contextmanager
def _of_shard(model: Layer, step: int, shard: int) -> Iterator[None]:
    """Within it, layers have generators of this shard's, and copies of their buffers."""
    layers = {id(layer): layer for _, layer in model.named_layers()}.values()
    random = {layer: layer.generator for layer in layers if isinstance(layer, RandomLayer)}
    buffers = {layer: layer.buffers for layer in layers if layer.buffers}
    try:
        for layer, generator in random.items():
            layer.generator = _generator(generator, step, shard)
        for other, own in buffers.items():
            other.buffers = {name: _copy(array) for name, array in own.items()}
        yield
    finally:
        for layer, generator in random.items():
            layer.generator = generator
        for other, own in buffers.items():
            other.buffers = own


def _generator(layer: np.random.Generator, step: int, shard: int) -> np.random.Generator:
    """A generator that follows from the layer's own, which stays as it is, and from step and shard."""
    state: Any = layer.bit_generator.state
    return np.random.default_rng(np.random.SeedSequence(state["state"]["state"], spawn_key=(step, shard)))


def _copy(array: Any) -> Array:
    return array.clone() if hasattr(array, "clone") else array.copy()
