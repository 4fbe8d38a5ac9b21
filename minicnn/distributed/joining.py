"""Which group this process trains in: its own alone, or that of all processes that torchrun has started.

torchrun tells each process its place in the environment (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``,
``MASTER_ADDR``, ``MASTER_PORT``).  Only where it does is torch imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from minicnn.distributed.processes import ALONE, Group

TIMEOUT = 300.0
"""Seconds after which a process that does not answer is given up."""

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each process that it starts."""

_current: Group = ALONE


def current() -> Group:
    """The group that this process trains in now."""
    return _current


def launched() -> bool:
    """Whether this process was started as one of several, by torchrun or in its way.

    Raises: ValueError if the environment says so in part only, or not in numbers
    """
    if not os.environ.get("WORLD_SIZE", "").strip() or "RANK" not in os.environ:
        return False
    missing = [name for name in ENVIRONMENT if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"[distributed] environment: expected {', '.join(ENVIRONMENT)}, as torchrun sets them, "
            f"got no {', '.join(missing)}"
        )
    size, rank = _number("WORLD_SIZE"), _number("RANK")
    if not 0 <= rank < size:
        raise ValueError(
            f"[distributed] RANK: expected a number from 0 to {size - 1}, got {rank} of {size} processes"
        )
    return size > 1


def restarted() -> bool:
    """Whether torchrun has started this process again, after one of the group had ended too early."""
    return launched() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def on_this_machine() -> int:
    """How many processes of the group run on this machine, as torchrun says in ``LOCAL_WORLD_SIZE``."""
    if not launched() or not os.environ.get("LOCAL_WORLD_SIZE"):
        return 1
    return max(1, _number("LOCAL_WORLD_SIZE"))


@contextmanager
def group(*, timeout: float = TIMEOUT, cards: bool = False) -> Iterator[Group]:
    """Train with all processes that torchrun has started; without it, with this one alone.

    Every `Trainer` that is made within takes its share of each batch.

    Args:   timeout seconds after which a process that does not answer is given up
            cards: on a machine with NVIDIA cards, each process takes that of its ``LOCAL_RANK``
    Raises: PeerError if a process does not come; ValueError if there is no card for this one
    Torch:  torch.distributed.init_process_group("cpu:gloo") or ("cpu:gloo,cuda:nccl")
    """
    global _current
    if _current is not ALONE or not launched():
        yield _current
        return
    from minicnn.distributed.torch_group import TorchGroup

    with TorchGroup.joined(timeout=timeout, cards=cards) as joined:
        _current = joined
        try:
            yield joined
        finally:
            _current = ALONE


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise ValueError(
            f"[distributed] {name}: expected a whole number, got {os.environ[name]:.40}"
        ) from None
