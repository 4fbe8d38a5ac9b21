"""Files that are no regular files, or of absurd size: what readers must refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def make_loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def make_device(path: Path) -> None:
    """A link to what never ends."""
    path.symlink_to("/dev/zero")


def make_sparse(path: Path) -> None:
    """8 GiB that take no room on the disk."""
    with path.open("wb") as file:
        file.truncate(8 << 30)


KINDS: tuple[Callable[[Path], object], ...] = (os.mkfifo, Path.mkdir, make_loop, make_device, make_sparse)
