"""Reader of folder:DIR, a folder with one folder of images for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minicnn.data.decode import decode, without_bad
from minicnn.data.errors import DataError
from minicnn.data.images import Images, Size
from minicnn.data.scan import Listed, class_folders, labels, list_images, note_others
from minicnn.data.split import balanced_subset, stratified_split
from minicnn.data.summary import Summary

TEST_SHARE = 0.2


def read_folder(
    root: Path,
    *,
    image_size: Size | None,
    limit_train: int | None,
    limit_test: int | None,
    seed: int,
    summary: Summary | None = None,
    skip_bad: bool = False,
) -> tuple[Images, Images, list[str]]:
    """Train images, test images and class names of a folder of images.

    ``root`` has one folder for each class; then a fifth of each class, chosen by ``seed``, is kept for the
    test.  Or it has ``train/`` and ``test/``, each with one folder for each class.  Classes are numbered in
    the order of their names.  Images are the files at any depth below the class's folder whose name or
    content says so; names that begin with a dot, and what systems and tools leave, are passed over.
    ``summary`` takes up what is found.  With ``skip_bad``, files that are no intact images are left out.

    The limits choose images before any is decoded.  If all that are chosen are grey, x is (N,1,H,W), else
    all become RGB, (N,3,H,W).

    Raises:  DataError naming the file or folder, UnusableImages naming all files that cannot be used
    """
    summary = Summary() if summary is None else summary
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one folder of images a class, got no such folder")
    parts = [root / "train", root / "test"]
    if all(part.is_dir() for part in parts):
        note_others(root, parts, summary)
        class_names = class_folders(parts[0], summary)
        if class_folders(parts[1], summary) != class_names:
            raise DataError(
                f"{parts[1]}: expected the same class folders as in {parts[0]}: {', '.join(class_names)}"
            )
        train, test = (list_images(part, class_names, summary) for part in parts)
    else:
        class_names = class_folders(root, summary)
        train, test = _split(root, list_images(root, class_names, summary), class_names, seed)
    train, test = _limited(train, limit_train, seed), _limited(test, limit_test, seed)
    x = decode(train + test, image_size, summary=summary, skip_bad=skip_bad)
    train, test = without_bad(train, summary), without_bad(test, summary)
    y, n = labels(train + test), len(train)
    return Images(x[:n], y[:n]), Images(x[n:], y[n:]), class_names


def _split(root: Path, listed: Listed, class_names: list[str], seed: int) -> tuple[Listed, Listed]:
    y = labels(listed)
    lone = np.flatnonzero(np.bincount(y) < 2)
    if lone.size:
        folder = root / class_names[lone[0]]
        raise DataError(f"{folder}: expected at least 2 images, one to train and one to test, got 1")
    train, test = stratified_split(y, TEST_SHARE, seed)
    return [listed[i] for i in train], [listed[i] for i in test]


def _limited(listed: Listed, limit: int | None, seed: int) -> Listed:
    if limit is None:
        return listed
    return [listed[i] for i in balanced_subset(labels(listed), limit, seed)]
