"""Reader of folder:DIR, a folder with one folder of images for each class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.images import Images, Size, read_image
from minicnn.data.split import balanced_subset, stratified_split

TEST_SHARE = 0.2
_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)


def read_folder(
    root: Path,
    *,
    image_size: Size | None,
    limit_train: int | None,
    limit_test: int | None,
    seed: int,
) -> tuple[Images, Images, list[str]]:
    """Train images, test images and class names of a folder of images.

    ``root`` has one folder for each class; then a fifth of each class, chosen by ``seed``, is kept for the
    test.  Or it has ``train/`` and ``test/``, each with one folder for each class.  Classes are numbered in
    the order of their names.  Images are the files with an image's suffix at any depth below the class's
    folder; names that begin with a dot are passed over.

    The limits choose images before any is decoded.  If all that are chosen are grey, x is (N,1,H,W), else
    all become RGB, (N,3,H,W).

    Raises:  DataError naming the file or folder
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one folder of images a class, got no such folder")
    parts = [root / "train", root / "test"]
    if all(part.is_dir() for part in parts):
        class_names = _class_names(parts[0])
        if _class_names(parts[1]) != class_names:
            raise DataError(
                f"{parts[1]}: expected the same class folders as in {parts[0]}: {', '.join(class_names)}"
            )
        train, test = (_list_images(part, class_names) for part in parts)
    else:
        class_names = _class_names(root)
        train, test = _split(root, _list_images(root, class_names), class_names, seed)
    train, test = _limited(train, limit_train, seed), _limited(test, limit_test, seed)
    x, y, n = _decode(train + test, image_size), _labels(train + test), len(train)
    paths = tuple(path for path, _ in train + test)
    return Images(x[:n], y[:n], paths[:n]), Images(x[n:], y[n:], paths[n:]), class_names


_Listed = list[tuple[Path, int]]
"""Paths of images, each with its class's number."""


def _class_names(root: Path) -> list[str]:
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        raise DataError(f"{root}: expected at least 2 class folders, got {len(names)}")
    return names


def _list_images(root: Path, class_names: list[str]) -> _Listed:
    listed = []
    for label, name in enumerate(class_names):
        paths = (Path(folder, file) for folder, _, files in os.walk(root / name) for file in files)
        images = sorted(path for path in paths if _is_image(path.relative_to(root)))
        if not images:
            raise DataError(f"{root / name}: expected images of the class {name!r}, got none")
        listed += [(image, label) for image in images]
    return listed


def _is_image(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in _SUFFIXES and not hidden


def _labels(listed: _Listed) -> NDArray[np.int64]:
    return np.array([label for _, label in listed], np.int64)


def _split(root: Path, listed: _Listed, class_names: list[str], seed: int) -> tuple[_Listed, _Listed]:
    y = _labels(listed)
    lone = np.flatnonzero(np.bincount(y) < 2)
    if lone.size:
        folder = root / class_names[lone[0]]
        raise DataError(f"{folder}: expected at least 2 images, one to train and one to test, got 1")
    train, test = stratified_split(y, TEST_SHARE, seed)
    return [listed[i] for i in train], [listed[i] for i in test]


def _limited(listed: _Listed, limit: int | None, seed: int) -> _Listed:
    if limit is None:
        return listed
    return [listed[i] for i in balanced_subset(_labels(listed), limit, seed)]


def _decode(listed: _Listed, size: Size | None) -> NDArray[np.uint8]:
    images: list[NDArray[np.uint8]] = []
    for path, _ in listed:
        image = read_image(path, channels=None, size=size)
        if images and image.shape[1:] != images[0].shape[1:]:
            (first, _), (height, width) = listed[0], image.shape[1:]
            raise DataError(
                f"{path}: expected {images[0].shape[2]}x{images[0].shape[1]} pixels as {first} has, "
                f"got {width}x{height}; --image-size resizes all to one size"
            )
        images.append(image)
    channels = max(len(image) for image in images)
    x = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for i in reversed(range(len(images))):
        x[i] = images.pop()  # each image is freed once copied, so that memory never holds all of them twice
    return x
