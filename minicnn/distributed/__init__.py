"""Training with several processes, which torchrun starts: the same bits for any number of them."""

from minicnn.distributed.joining import TIMEOUT, current, group, launched, on_this_machine, restarted
from minicnn.distributed.processes import ALONE, Group, PeerError

__all__ = [
    "ALONE",
    "TIMEOUT",
    "Group",
    "PeerError",
    "current",
    "group",
    "launched",
    "on_this_machine",
    "restarted",
]
