"""Finding the images of a folder: class folders, and the files in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError

Listed = list[tuple[Path, int]]
"""Paths of images, each with its class's number."""

_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)


def class_folders(root: Path) -> list[str]:
    """The names of the class folders of ``root``, in order.  Raises DataError if there are fewer than 2."""
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        raise DataError(f"{root}: expected at least 2 class folders, got {len(names)}")
    return names


def find_images(folder: Path) -> list[Path]:
    """The images at any depth below a folder, sorted; names that begin with a dot are passed over."""
    paths = (Path(below, file) for below, _, files in os.walk(folder) for file in files)
    return sorted(path for path in paths if _is_image(path.relative_to(folder)))


def list_images(root: Path, class_names: list[str]) -> Listed:
    """The images of each class, sorted.  Raises DataError naming a class that has none."""
    listed = []
    for label, name in enumerate(class_names):
        images = find_images(root / name)
        if not images:
            raise DataError(f"{root / name}: expected images of the class {name!r}, got none")
        listed += [(image, label) for image in images]
    return listed


def labels(listed: Listed) -> NDArray[np.int64]:
    """The classes' numbers (N,)."""
    return np.array([label for _, label in listed], np.int64)


def _is_image(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in _SUFFIXES and not hidden
