"""Training with several processes, which torchrun starts: the same bits for any number of them."""

from minicnn.distributed.group import ALONE, TIMEOUT, Group, PeerError, current, group, launched, restarted

__all__ = ["ALONE", "TIMEOUT", "Group", "PeerError", "current", "group", "launched", "restarted"]
