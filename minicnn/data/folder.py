"""Reader of folder:DIR, a folder with one folder of images for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minicnn.data.decode import decode
from minicnn.data.errors import DataError
from minicnn.data.images import Images, Size
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.scan import Listed, class_folders, labels, list_images
from minicnn.data.split import balanced_subset, stratified_split

TEST_SHARE = 0.2


def read_folder(
    root: Path,
    *,
    image_size: Size | None,
    limit_train: int | None,
    limit_test: int | None,
    seed: int,
    progress: OnProgress = ignore,
) -> tuple[Images, Images, list[str]]:
    """Train images, test images and class names of a folder of images.

    ``root`` has one folder for each class; then a fifth of each class, chosen by ``seed``, is kept for the
    test.  Or it has ``train/`` and ``test/``, each with one folder for each class.  Classes are numbered in
    the order of their names.  Images are the files with an image's suffix at any depth below the class's
    folder; names that begin with a dot are passed over.

    The limits choose images before any is decoded.  If all that are chosen are grey, x is (N,1,H,W), else
    all become RGB, (N,3,H,W).  ``progress`` is called before each is decoded.

    Raises:  DataError naming the file or folder
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one folder of images a class, got no such folder")
    parts = [root / "train", root / "test"]
    if all(part.is_dir() for part in parts):
        class_names = class_folders(parts[0])
        if class_folders(parts[1]) != class_names:
            raise DataError(
                f"{parts[1]}: expected the same class folders as in {parts[0]}: {', '.join(class_names)}"
            )
        train, test = (list_images(part, class_names) for part in parts)
    else:
        class_names = class_folders(root)
        train, test = _split(root, list_images(root, class_names), class_names, seed)
    train, test = _limited(train, limit_train, seed), _limited(test, limit_test, seed)
    x, y, n = decode(train + test, image_size, progress), labels(train + test), len(train)
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
