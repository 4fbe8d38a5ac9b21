"""What stands for a CUDA graph where kernels are emulated: launches and torch's operations, to repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _TorchCalls(TorchDispatchMode):
    """Adds what torch computes to a recording of the module, as a graph has torch's kernels too."""

    def __init__(self, recording: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recording = recording

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func._schema.is_mutable:
            self._recording.call(lambda: func(*args, **options))
            return args[0]
        result = func(*args, **options)
        is_view = any(returned.alias_info is not None for returned in func._schema.returns)
        if not is_view and any(isinstance(a, torch.Tensor) for a in args):
            self._recording.call(lambda: result.copy_(func(*args, **options)))
        return result


def record(recording: Any, work: Callable[[], object]) -> Any:
    """The recording, filled with all that ``work`` computes; nothing of it is computed yet."""
    recording.begin()
    try:
        with _TorchCalls(recording):
            work()
    finally:
        recording.end()
    return recording
