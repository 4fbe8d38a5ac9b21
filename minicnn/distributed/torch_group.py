"""Processes that meet through torch.distributed: gloo between hosts, NCCL between cards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from minicnn.backends import Array
from minicnn.distributed.processes import Group, PeerError, Value, finish

HALVED_FROM = 1 << 14
"""From so many numbers on, sending them takes longer than beginning to: then fewer are sent, more often."""


class TorchGroup(Group):
    """All processes that torchrun has started."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self.rank, self.size, self.timeout = dist.get_rank(), dist.get_world_size(), timeout
        self._flagged = False

    @classmethod
    @contextmanager
    def joined(cls, *, timeout: float, cards: bool) -> Iterator[Self]:
        """Join the group while the context lasts; one that the program has joined already will do.

        Raises: PeerError if not all come
        """
        if dist.is_initialized():
            yield cls(timeout)
            return
        cards = cards and torch.cuda.is_available()
        if cards:
            _take_card()
            os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # so that a peer which hangs is told of
        library = "cpu:gloo,cuda:nccl" if cards else "gloo"
        try:
            dist.init_process_group(library, timeout=timedelta(seconds=timeout))
        except (RuntimeError, ValueError) as error:
            rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise PeerError(
                f"[distributed] rank {rank}: expected {size} processes at {place} within {timeout:g} s, "
                f"got {_first_line(error)}"
            ) from error
        try:
            yield cls(timeout)
        finally:
            dist.destroy_process_group()

    @property
    def flagged(self) -> bool:
        return self._flagged

    def note(self, flagged: bool) -> None:
        self._flagged = flagged

    def meet(self) -> None:
        raised = torch.tensor(int(self.flag))
        with self._waiting_for("the others"):
            dist.all_reduce(raised, dist.ReduceOp.MAX)
        self._flagged = bool(raised)

    def add(self, values: Array) -> None:
        finish([self.begin_add(values, torch.empty_like(torch.as_tensor(values)))])

    def begin_add(self, values: Array, room: Array) -> Iterator[None]:
        return _begun(self._adding(torch.as_tensor(values), torch.as_tensor(room)))

    def begin_sum(self, values: Array, room: Array) -> Iterator[None]:  # noqa: ARG002 - the library has its own
        return _begun(self._summing(torch.as_tensor(values)))

    def join(self, values: Array, together: Callable[[Array, Array], Array]) -> Array:
        for partner in self._partners():
            mine = torch.as_tensor(values)
            received = torch.empty_like(mine)
            self._wait(self._begin_exchange(mine, received, partner), partner)
            values = together(values, received if values is mine else received.numpy())
        return values

    def _partners(self) -> list[int]:
        """The ranks with which this one meets, level by level of the tree."""
        return [self.rank ^ 1 << level for level in range(self.size.bit_length() - 1)]

    def _adding(self, mine: Tensor, room: Tensor) -> Iterator[None]:
        """The exchanges that add all ranks' arrays, level by level.

        Of two, the library's own sum is faster and the same to the bit: each number comes of one addition.
        """
        if self.size == 2:
            yield from self._summing(mine)
            return
        if len(mine) >= HALVED_FROM:
            yield from self._adding_halves(mine, room)
            return
        for partner in self._partners():
            works = self._begin_exchange(mine, room, partner)
            yield
            self._wait(works, partner)
            mine += room

    def _adding_halves(self, mine: Tensor, room: Tensor) -> Iterator[None]:
        """The same sums, each by one of two partners, who halve the array, then tell their half.

        Source: Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations
        """
        start, stop = 0, len(mine)
        levels = []
        for partner in self._partners():
            middle = (start + stop) // 2
            lower, upper = slice(start, middle), slice(middle, stop)
            own, other = (lower, upper) if self.rank < partner else (upper, lower)
            works = self._begin_exchange(mine[other], room[own], partner)
            yield
            self._wait(works, partner)
            mine[own] += room[own]
            levels.append((partner, own, other))
            start, stop = own.start, own.stop
        for partner, own, other in reversed(levels):
            works = self._begin_exchange(mine[own], mine[other], partner)
            yield
            self._wait(works, partner)

    def _summing(self, mine: Tensor) -> Iterator[None]:
        work: Any = dist.all_reduce(mine, async_op=True)
        yield
        with self._waiting_for("the others"):
            work.wait()

    def _begin_exchange(self, sent: Tensor, received: Tensor, partner: int) -> list[Any]:
        """Begin to send an array to a partner, and to receive another one."""
        operations = [(dist.irecv, received), (dist.isend, sent)]
        with self._waiting_for(f"rank {partner}"):
            return dist.batch_isend_irecv([dist.P2POp(do, a, partner) for do, a in operations if len(a)])

    def _wait(self, works: list[Any], partner: int) -> None:
        with self._waiting_for(f"rank {partner}"):
            for work in works:
                work.wait()

    def tell(self, value: Value) -> Value:
        values = [value]
        with self._waiting_for("rank 0"):
            dist.broadcast_object_list(values)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.size
        with self._waiting_for("the others"):
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def _waiting_for(self, whom: str) -> Iterator[None]:
        """Say in one line that a process did not answer, or has ended."""
        try:
            yield
        except RuntimeError as error:
            raise PeerError(
                f"[distributed] rank {self.rank}: expected an answer of {whom} within {self.timeout:g} s, "
                f"got none: {_first_line(error)}"
            ) from error


def _take_card() -> None:
    """Compute on the card whose number is ``LOCAL_RANK``.  Raises ValueError if there is no such."""
    number, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= cards:
        raise ValueError(
            f"[distributed] cards: expected one for each process of this machine, got {cards} for process "
            f"{number + 1}"
        )
    torch.cuda.set_device(number)


def _first_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0].partition(". This is typically")[0]
    return text.rpartition("] ")[2] if text.startswith("[") else text


def _begun(exchanges: Iterator[None]) -> Iterator[None]:
    next(exchanges, None)
    return exchanges
