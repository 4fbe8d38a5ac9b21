"""How long work with images tells how far it has come."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with how many images are done, and of how many; it may raise, which ends the work."""


def ignore(done: int, total: int) -> None:
    """The progress that nobody watches."""
