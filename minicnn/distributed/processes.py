"""The processes that train one model together, and how they meet: what one does that is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from minicnn.backends import Array

Value = TypeVar("Value")


class PeerError(ValueError):
    """Another process of the group is missing, does not answer, or has ended."""


class Group:
    """A single process, which is the first of its group and its only one.

    ``flag`` is what this process wants all to know, such as that it was asked to stop; ``flagged`` says
    whether any process had raised its flag when all last met.
    """

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.flag = False

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0

    @property
    def flagged(self) -> bool:
        """Whether a flag was raised; the same on all ranks."""
        return self.flag

    def meet(self) -> None:
        """Wait for all, and learn whether any has raised its flag."""

    def add(self, values: Array) -> None:
        """Replace an array by the sum of all ranks', added pairwise: (0 + 1) + (2 + 3), and so on."""

    def join(self, values: Array, together: Callable[[Array, Array], Array]) -> Array:  # noqa: ARG002
        """All ranks' arrays taken together in the same tree, by what gives the same for either order."""
        return values

    def begin_add(self, values: Array, room: Array) -> Iterator[None]:  # noqa: ARG002 - it has its sum
        """Begin to do as `add`; ``room`` is an array alike, in which others' values arrive.

        Each step of what it returns waits for one exchange, and begins the next.
        """
        return iter(())

    def begin_sum(self, values: Array, room: Array) -> Iterator[None]:  # noqa: ARG002
        """The same with the sums in any order."""
        return iter(())

    def note(self, flagged: bool) -> None:
        """Take down whether any process has raised its flag, where that was summed with other things."""

    def tell(self, value: Value) -> Value:
        """What rank 0 has, on all ranks."""
        return value

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order, on all ranks."""
        return [value]


def finish(sums: Iterable[Iterator[None]]) -> None:
    """Bring sums that have begun to their ends, all by one exchange, then all by the next."""
    under_way = list(sums)
    while under_way:
        under_way = [exchanges for exchanges in under_way if next(exchanges, _END) is not _END]


_END = object()

ALONE = Group()
