"""The ways of running PyTorch that the benchmarks compare with, a row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Peer(NamedTuple):
    """Memory order of images and filters, and whether torch.compile translates the call."""

    order: torch.memory_format
    compiled: bool = False

    def images(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).contiguous(memory_format=self.order)

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call as this peer runs it; a compiled one is translated for its shapes when first called."""
        if not self.compiled:
            return call
        torch._dynamo.reset()
        # benchmarks call backward again and again on one graph
        torch._functorch.config.donated_buffer = False
        return torch.compile(call, dynamic=False)


PEERS = {
    "torch eager": Peer(torch.contiguous_format),
    "torch channels-last": Peer(torch.channels_last),
    "torch.compile": Peer(torch.contiguous_format, compiled=True),
}
