"""The ways to run PyTorch that minicnn is compared with; each is a row in the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Peer(NamedTuple):
    """The memory order of images and filters, and whether torch.compile compiles the call."""

    order: torch.memory_format
    compiled: bool = False

    def images(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).contiguous(memory_format=self.order)

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call as this peer runs it.  torch.compile compiles for the shapes of the first call."""
        if not self.compiled:
            return call
        torch._dynamo.reset()
        # with donated buffers a compiled backward refuses retain_graph=True, which the benchmarks need
        torch._functorch.config.donated_buffer = False
        return torch.compile(call, dynamic=False)


PEERS = {
    "torch eager": Peer(torch.contiguous_format),
    "torch channels-last": Peer(torch.channels_last),
    "torch.compile": Peer(torch.contiguous_format, compiled=True),
}
