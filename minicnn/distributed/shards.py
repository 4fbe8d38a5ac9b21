"""Into which parts a batch is cut, and which of them this process computes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from minicnn.backends import Array
from minicnn.distributed.processes import Group


class Shards:
    """A batch is cut into ``count`` neighbouring shards, whatever the number of processes.

    Their sizes differ by one image at most.  Rank r of W processes computes count / W neighbouring ones.
    So the bits of a training step depend on ``count``, and not on W.

    Raises: ValueError unless count and the number of processes are powers of two, and count is not the
            smaller one
    """

    def __init__(self, count: int, group: Group) -> None:
        if group.size & (group.size - 1):
            raise ValueError(f"[shards] processes: expected 1, 2, 4, 8, 16, … of them, got {group.size}")
        if not isinstance(count, int) or count < 1 or count & (count - 1):
            raise ValueError(f"[shards] expected a power of two, got {count}")
        if count < group.size:
            raise ValueError(
                f"[shards] expected at least one for each of {group.size} processes, got {count}; a run "
                "keeps the number that it began with"
            )
        self.count, self.each = count, count // group.size
        self.own = range(group.rank * self.each, (group.rank + 1) * self.each)

    def cut(self, images: int) -> list[slice]:
        """The rows of each shard of a batch of so many images."""
        bounds = [images * shard // self.count for shard in range(self.count + 1)]
        return [slice(*pair) for pair in pairwise(bounds)]

    def part(self, images: int) -> slice:
        """The rows of a batch of so many images that this process computes."""
        cut = self.cut(images)
        return slice(cut[self.own.start].start, cut[self.own.stop - 1].stop)


def in_tree(values: list[Array], together: Callable[[Any, Any], Any] = operator.add) -> Array:
    """What neighbouring shards have, taken together pairwise: (0 + 1) + (2 + 3), and so on."""
    while len(values) > 1:
        values = [together(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
    return values[0]
