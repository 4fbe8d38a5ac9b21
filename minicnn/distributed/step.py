"""The gradients of a batch that is cut into shards, with the same bits on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minicnn.backends import Array
from minicnn.distributed.layout import Layout
from minicnn.distributed.overlap import Buckets
from minicnn.distributed.processes import Group
from minicnn.distributed.shards import Shards
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.layer import Layer, RandomLayer

if TYPE_CHECKING:
    from minicnn.trainer import Trainer

REDUCE = ("ordered", "fast")
"""How gradients are summed: see `Trainer`."""

IGNORED = -100
"""The label that the loss passes over."""


class Part(NamedTuple):
    """A shard: its number, its images and labels, its share of the batch's loss and of its images."""

    shard: int
    x: Array
    y: Array
    share: float
    share_of_images: float


class ShardedStep:
    """Computes this process's shards of a batch one after another, and sums those of all.

    A shard's loss counts by its share of the batch, so the gradients' sum is that of the batch's mean
    loss.  They are added pairwise in a binary tree whose leaves are the shards.  A sum of two IEEE numbers
    does not depend on their order, so neither do the bits depend on which process adds which branch.

    Batch norms normalise each shard by its own statistics.  A shard moves a copy of the running statistics,
    and the mean of the copies, each by its share of the images, is the new value.  A random layer draws for
    each shard from a generator of its own, which follows from the layer, the step and the shard.
    """

    def __init__(self, trainer: Trainer, shards: Shards, group: Group) -> None:
        self.trainer, self.shards, self.group = trainer, shards, group
        self._rows: list[Array] = []
        self._received: Array | None = None
        """A row for what other processes send."""

    def check(self, images: int) -> None:
        """Refuse a batch of so many images whose shards batch norm cannot learn from.

        Raises: ValueError
        """
        if images // self.shards.count < 2 and self.has_batch_norm():
            raise ValueError(
                f"[shards] expected at least 2 images in each of {self.shards.count} shards, since batch "
                f"norm cannot learn from one alone, got a batch of {images}: choose another batch size, or "
                "fewer shards"
            )

    def has_batch_norm(self) -> bool:
        """Whether the model has a batch norm that is not frozen."""
        layers = (layer for _, layer in self.trainer.model.named_layers())
        return any(isinstance(layer, BatchNorm2d) and layer.requires_grad for layer in layers)

    def layout(self) -> Layout:
        """What has a place in the row that is summed."""
        return Layout(self.trainer.model)

    def compute(
        self, x: Array, y: Array, labels: NDArray[Any], meanwhile: Callable[[], object] | None
    ) -> tuple[float, int]:
        """Set the gradients of the whole batch, and move the running statistics.

        Args:    x, y the rows of this process · labels those of the whole batch (N,) or (N,K)
        Returns: the mean loss and the number of right answers of the whole batch
        """
        self.check(len(labels))
        cut = self.shards.cut(len(labels))
        first = cut[self.shards.own.start].start
        expected = cut[self.shards.own.stop - 1].stop - first
        if not len(labels) or not len(x) == len(y) == expected:
            raise ValueError(
                f"[Trainer] x, y: expected this process's {expected} rows of a batch of {len(labels)} "
                f"images, which has at least 1, got {len(x)} and {len(y)}"
            )
        shares = self._shares(labels, cut, mixed=y.ndim > 1)
        parts = []
        for shard in self.shards.own:
            rows = slice(cut[shard].start - first, cut[shard].stop - first)
            share_of_images = (rows.stop - rows.start) / len(labels)
            parts.append(Part(shard, x[rows], y[rows], shares[shard], share_of_images))
        layout = self.layout()
        if self._rows and len(self._rows[0]) != layout.length:  # layers were frozen
            self._rows, self._received = [], None
        row = self._total(layout, parts, meanwhile)
        loss, correct, flagged = layout.numbers(row)
        self.group.note(flagged)
        return loss, correct

    def _total(self, layout: Layout, parts: list[Part], meanwhile: Callable[[], object] | None) -> Array:
        """The sum of all shards' rows, of all processes; the model has its gradients and buffers."""
        earlier: list[Array] = []
        while len(parts) > 1:
            half = len(parts) // 2
            earlier.insert(0, self._sum(layout, parts[:half], len(earlier)))
            parts = parts[half:]
        row = self._row(layout, len(earlier))
        buckets = Buckets(layout, row, earlier, partial(self._begin, layout))
        self._fill(layout, row, parts[0], meanwhile, buckets)
        buckets.finish(complete=len(parts[0].y) > 0)
        return row

    def _begin(self, layout: Layout, values: Array, place: slice) -> Iterator[None]:
        """Begin to sum the processes' values of one place."""
        begin = self.group.begin_sum if self.trainer.reduce == "fast" else self.group.begin_add
        room = values  # one process alone needs none
        if self.group.size > 1:
            if self._received is None:
                self._received = layout.row()
            room = self._received[place]
        return begin(values, room)

    def _sum(self, layout: Layout, parts: list[Part], depth: int = 0) -> Array:
        """The sum of these shards' rows, pairwise.

        There is one row for each depth in the tree, since no two branches of one depth wait.
        """
        if len(parts) == 1:
            row = self._row(layout, depth)
            self._fill(layout, row, parts[0])
            return row
        half = len(parts) // 2
        left = self._sum(layout, parts[:half], depth)
        left += self._sum(layout, parts[half:], depth + 1)
        return left

    def _row(self, layout: Layout, depth: int) -> Array:
        while len(self._rows) <= depth:
            self._rows.append(layout.row())
        return self._rows[depth]

    def _fill(
        self, layout: Layout, row: Array, part: Part, meanwhile: Callable[[], object] | None = None,
        buckets: Buckets | None = None,
    ) -> None:  # fmt: skip
        """Compute a shard, and fill its row; one without images has zeros.

        With ``buckets``, which are told of each layer that has its gradients, these are not put in here.
        """
        trainer, loss, correct = self.trainer, 0.0, 0
        if len(part.y):
            with _of_shard(trainer.model, trainer.optimizer.steps, part.shard):
                done = None
                if buckets is not None and not trainer.overrides("compute_gradients"):
                    done = buckets.done
                loss = trainer.compute_gradients(part.x, part.y, meanwhile, done, part.share)
                correct = trainer.correct
                moved = trainer.model.named_buffers(trainable_only=True)
            layout.put_buffers(row, moved, part.share_of_images)
            if buckets is None:
                layout.put_gradients(row)
        else:
            row[:] = 0
        self.set_numbers(layout, row, part, loss, correct)

    def set_numbers(self, layout: Layout, row: Array, part: Part, loss: float, correct: int) -> None:
        """Put a shard's numbers into its row; the flag of the process goes into the first one's."""
        flag = self.group.flag and part.shard == self.shards.own[0]
        layout.set_numbers(row, loss * part.share if part.share else 0.0, correct, flag)

    def _shares(self, labels: NDArray[Any], cut: list[slice], *, mixed: bool) -> list[float]:
        """Which share of the batch's mean loss each shard has; see F.cross_entropy's reduction.

        Where the loss gets ``mixed`` labels, probabilities, every image counts alike.
        """
        if mixed:
            return [len(labels[rows]) / len(labels) for rows in cut]
        counted = labels != IGNORED
        weights = counted.astype(np.float64)
        if self.trainer.class_weight is not None:
            of_class = np.asarray(self.trainer.backend.to_numpy(self.trainer.class_weight), np.float64)
            if not np.isin(labels[counted], np.arange(len(of_class))).all():
                raise ValueError(f"[Trainer] y: expected labels from 0 to {len(of_class) - 1}, got others")
            weights[counted] = of_class[labels[counted]]
        total = float(weights.sum())
        return [float(weights[rows].sum()) / total if total else math.nan for rows in cut]


@contextmanager
def _of_shard(model: Layer, step: int, shard: int) -> Iterator[None]:
    """Within it, layers have generators of this shard's, and copies of their buffers."""
    layers = {id(layer): layer for _, layer in model.named_layers()}.values()
    random = {layer: layer.generator for layer in layers if isinstance(layer, RandomLayer)}
    buffers = {layer: layer.buffers for layer in layers if layer.buffers}
    try:
        for layer, generator in random.items():
            layer.generator = generator_of(generator, step, shard)
        for other, own in buffers.items():
            other.buffers = {name: _copy(array) for name, array in own.items()}
        yield
    finally:
        for layer, generator in random.items():
            layer.generator = generator
        for other, own in buffers.items():
            other.buffers = own


def generator_of(layer: np.random.Generator, step: int, shard: int) -> np.random.Generator:
    """A generator that follows from the layer's own, which stays as it is, and from step and shard."""
    state: Any = layer.bit_generator.state
    return np.random.default_rng(np.random.SeedSequence(state["state"]["state"], spawn_key=(step, shard)))


def _copy(array: Any) -> Array:
    return array.clone() if hasattr(array, "clone") else array.copy()
