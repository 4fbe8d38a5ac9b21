"""What torch has to know of one operation: its arguments, both directions, and its results' shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

Shape = Sequence[Any]
Results = tuple[Any, ...]
"""Tensors, or None for what is not needed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """One operation as torch sees it.

    A forward function gets the backend, whether a backward pass will follow, and the arguments.  It returns
    y, and after it what the backward pass needs besides, if one follows.  A backward function gets the
    backend, dy, what ``saves`` chose of arguments and results, the shape of the first argument, the
    attributes and which gradients are needed; it returns a gradient for each of ``learns``.
    """

    name: str
    tensors: tuple[str, ...]
    """Types and names of the tensors, which are the first arguments."""
    learns: int
    """How many of the first arguments may have a gradient."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Type and name of every other argument -> its default."""
    forward: Callable[..., Results]
    backward: Callable[..., Results] | None
    saves: Callable[[Results, Results], Results] = lambda *_: ()
    results: Callable[..., tuple[tuple[Shape, torch.dtype], ...]]
    """Shapes and dtypes of all results, of the arguments."""
    extras: int = 0
    """How many results the forward pass gives besides y, for the backward pass."""
    listed: bool = False
    """Whether the tensors are one argument, a list."""

    @property
    def arguments(self) -> str:
        """The arguments as torch's schemas write them."""
        return ", ".join([*self.tensors, *(f"{name}={value}" for name, value in self.attributes.items())])

    @property
    def plain_attributes(self) -> str:
        """The attributes as torch's schemas write them, without defaults."""
        return "".join(f"{name}, " for name in self.attributes)

    @cached_property
    def tensor_count(self) -> int:
        """How many arguments come before the attributes."""
        return len(self.tensors)
