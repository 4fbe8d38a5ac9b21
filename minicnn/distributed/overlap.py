"""Sums over the shards of a process, and over all processes, that begin while the backward pass goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from minicnn.backends import Array
from minicnn.distributed.layout import Bucket, Layout
from minicnn.distributed.processes import finish
from minicnn.layers.layer import Layer


class Buckets:
    """The parts of a row, summed as soon as the backward pass has filled them.

    Their bounds and their order follow from the layout, so all processes sum the same ones.  Each value is
    added to that of the same place alone, so its bits do not depend on the bounds.

    Torch:  DistributedDataParallel's buckets
    Source: Li et al. 2020, arXiv:2006.15704, section 3.2
    Args:   row, to be filled with what the last shard of this process has · earlier, the rows that are to
            be added to it, one after another · begin, which begins the sum over all processes of an array
            that has this place in the row
    """

    def __init__(
        self,
        layout: Layout,
        row: Array,
        earlier: list[Array],
        begin: Callable[[Array, slice], Iterator[None]],
    ) -> None:
        self.layout, self.row, self.earlier, self.begin = layout, row, earlier, begin
        self._left = deque(layout.buckets)
        self._filled: set[Layer] = set()
        self._under_way: list[Iterator[None]] = []

    def done(self, layer: Layer) -> None:
        """Begin to sum the buckets that are full, now that this layer has its gradients."""
        self._filled.add(layer)
        while self._left and all(owner in self._filled for owner, _, _ in self._left[0].parameters):
            self._begin(self._left.popleft(), complete=True)

    def finish(self, *, complete: bool) -> None:
        """Sum what is left, wait for all sums, and give the model its gradients and buffers.

        ``complete`` says whether it has gradients: if not, the row has zeros.
        """
        for bucket in (*self._left, self.layout.last):
            self._begin(bucket, complete=complete)
        finish(self._under_way)
        copied = (bucket.parameters for bucket in self.layout.buckets if not (bucket.is_large and complete))
        in_row = [parameter for parameters in copied for parameter in parameters]
        self.layout.take(self.row, [*in_row, *self.layout.last.parameters])

    def _begin(self, bucket: Bucket, *, complete: bool) -> None:
        if complete and bucket.is_large:
            values = self.layout.in_its_own_place(bucket.parameters[0])
        else:
            if complete:
                self.layout.put_gradients(self.row, bucket.parameters)
            values = self.row[bucket.place]
        for row in self.earlier:
            values += row[bucket.place]
        self._under_way.append(self.begin(values, bucket.place))
