"""Sums over the processes that begin while the backward pass goes on, without the promise of equal bits."""

from __future__ import annotations

from collections.abc import Callable

from minicnn.backends import Array
from minicnn.distributed.layout import Layout
from minicnn.distributed.processes import Group
from minicnn.distributed.step import Part, ShardedStep
from minicnn.layers.layer import Layer

REDUCE = ("ordered", "fast")
"""How gradients are summed: see `Trainer`."""

BUCKET = 1 << 20
"""At least so many gradients are summed together: fewer take hardly less time."""


class OverlappedStep(ShardedStep):
    """A sharded step whose gradients are summed in buckets, as soon as the backward pass has filled one.

    Torch:  DistributedDataParallel's buckets
    Source: Li et al. 2020, arXiv:2006.15704, section 3.2
    """

    def _total(self, layout: Layout, parts: list[Part], meanwhile: Callable[[], object] | None) -> Array:
        *earlier, last = parts
        row = self._row(layout, 0)
        row[:] = 0
        before = self._sum(layout, earlier, None, 1) if earlier else None
        buckets = Buckets(self.group, layout, row, before)
        self._fill(layout, row, last, meanwhile, buckets.done)
        buckets.finish(complete=len(last.y) > 0)
        return row


class Buckets:
    """Parts of a row, from its end to its start, as the backward pass fills it.

    Their bounds follow from the layout, and they are summed in one order, so all ranks sum the same ones.

    Args: row, to be filled with the gradients of the last shard of this process · before, the sum of its
          earlier shards' rows, if there are any
    """

    def __init__(self, group: Group, layout: Layout, row: Array, before: Array | None) -> None:
        self.group, self.layout, self.row, self.before = group, layout, row, before
        self.bounds: list[slice] = []
        stop = layout.gradients_end
        for _, _, place in reversed(layout.parameters):
            if stop - place.start >= BUCKET or place.start == 0:
                self.bounds.append(slice(place.start, stop))
                stop = place.start
        self._left = {id(layer): layer for layer, _, _ in layout.parameters}
        self._empty = layout.gradients_end
        """From here on the row is filled."""
        self._waits: list[Callable[[], None]] = []

    def done(self, layer: Layer) -> None:
        """Put in a layer's gradients, and begin to sum the buckets that are full now."""
        if self._left.pop(id(layer), None) is None:
            return
        for owner, name, place in self.layout.parameters:
            if owner is layer:
                self.layout.put_gradient(self.row, layer, name, place)
        unfilled = [place.stop for owner, _, place in self.layout.parameters if id(owner) in self._left]
        self._empty = max(unfilled, default=0)
        while self.bounds and self.bounds[0].start >= self._empty:
            self._begin(self.bounds.pop(0))

    def finish(self, *, complete: bool) -> None:
        """Sum what is left, and wait for all sums; ``complete`` says whether there are gradients."""
        for layer in list(self._left.values()) if complete else ():
            self.done(layer)
        for bounds in [*self.bounds, slice(self.layout.gradients_end, self.layout.length)]:
            self._begin(bounds)
        for wait in self._waits:
            wait()

    def _begin(self, bounds: slice) -> None:
        if self.before is not None:
            self.row[bounds] += self.before[bounds]
        self._waits.append(self.group.begin_sum(self.row[bounds]))
