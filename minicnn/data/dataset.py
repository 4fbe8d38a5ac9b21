"""Datasets by name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.digits import read_digits
from minicnn.data.errors import DataError
from minicnn.data.folder import read_folder
from minicnn.data.idx import read_idx_pair
from minicnn.data.images import Images, Size, resize_images
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.record import SplitRecord
from minicnn.data.split import balanced_subset, stratified_split
from minicnn.data.summary import Summary
from minicnn.data.torchvision_sets import FASHION_MNIST_CLASSES, SOURCES, Splits, read_torchvision_set

SAMPLE = "fashion-mnist-sample"
DIGITS = "digits"
FOLDER = "folder:"
DEFAULT_DATA_DIR = Path("data")
_SAMPLE_DIR = Path(__file__).parent / "sample"
_IMAGES_AT_ONCE = 1024  # keeps the temporaries of the sums small


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test images, decoded and in memory.

    validation:   to choose by, such as the best epoch; None if none are held out.  ``test`` chooses nothing
    mean, std:    float64 (C,) of the train pixels in [0, 1]; std is 1 for a channel that is constant
    fingerprint:  hexadecimal digest of all pixels, labels and class names; equal only for equal data
    record:       of folder:DIR, which images are in which part; None of the others
    notes:        lines that a user should see before training, such as images that two parts share
    summary:      what was found in a folder of images; None for datasets by name
    """

    name: str
    train: Images
    test: Images
    class_names: list[str]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    fingerprint: str
    validation: Images | None = None
    record: SplitRecord | None = None
    notes: list[str] = field(default_factory=list)
    summary: Summary | None = None


def names() -> list[str]:
    """Names that ``load`` takes; besides these, ``folder:DIR``."""
    return [SAMPLE, DIGITS, *SOURCES]


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: Size | None = None,
    validation: float | None = None,
    group_by: str | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    seed: int = 0,
    download: bool = True,
    skip_bad: bool = False,
    progress: OnProgress = ignore,
) -> Dataset:
    """Read a whole dataset into memory.

    Args:    name one of names(), or folder:DIR, a folder with one folder of images for each class
             data_dir where torchvision's datasets are, and where they are downloaded to (default: ./data);
             they are found in torchvision's layout, or as files in data_dir itself
             image_size resizes every image to a square of this side, or to (H, W)
             validation is the share of the training images, below 1, that is held out to choose by, unless
             folder:DIR has val/; each class keeps at least one image to learn from.  None takes val/ or
             nothing, 0 takes nothing
             group_by is a regular expression for the paths of folder:DIR: images of one group, such as a
             clip, stay in one part; `data.folder.find` says more
             limit_train, limit_test keep this many images, chosen by ``seed``, about the same number of
             each class
             seed also chooses the validation images, and splits folder:DIR and digits, if they have no test
             images of their own
             download lets torchvision, if it is installed, download what is not in data_dir
             progress is called with (done, total) as images are decoded or resized; it may raise
             skip_bad leaves out those of a folder's files that are no intact images
    Raises:  DataError, one sentence that names the file, or says which files to put where; UnusableImages
             naming all files of a folder that cannot be used
    """
    if name.startswith(FOLDER):
        summary = Summary()
        found = read_folder(
            folder_of(name), image_size=image_size, validation=validation, group_by=group_by,
            limit_train=limit_train, limit_test=limit_test, seed=seed, summary=summary, skip_bad=skip_bad,
            progress=progress,
        )  # fmt: skip
        return _dataset(
            name, found.train, found.test, found.validation, found.class_names, found.record, found.notes,
            summary,
        )  # fmt: skip
    if group_by is not None:
        raise DataError(f"group-by {group_by!r}: expected folder:DIR, whose files have names, got {name}")
    train, test, class_names = _read_named(name, data_dir, download, seed)
    train = _prepared(train, limit_train, image_size, seed, progress)
    test = _prepared(test, limit_test, image_size, seed, progress)
    train, held = _held_out(train, validation, seed)
    return _dataset(name, train, test, held, class_names)


def _dataset(
    name: str, train: Images, test: Images, validation: Images | None, class_names: list[str],
    record: SplitRecord | None = None, notes: Sequence[str] = (), summary: Summary | None = None,
) -> Dataset:  # fmt: skip
    mean, std = _mean_and_std(train.x)
    fingerprint = _fingerprint([train, test, *([validation] if validation else [])], class_names)
    return Dataset(
        name, train, test, class_names, mean, std, fingerprint, validation, record, list(notes), summary
    )


def folder_of(name: str) -> Path:
    """The folder that folder:DIR names."""
    return Path(name.removeprefix(FOLDER)).expanduser()


def _read_named(name: str, data_dir: str | Path | None, download: bool, seed: int) -> Splits:
    if name == SAMPLE:
        train, test = (
            read_idx_pair(*sample_files(split), len(FASHION_MNIST_CLASSES)) for split in ("train", "t10k")
        )
        return train, test, list(FASHION_MNIST_CLASSES)
    if name == DIGITS:
        return read_digits(seed)
    if name not in SOURCES:
        raise DataError(f"dataset: expected {', '.join(names())} or folder:DIR, got {name!r}")
    folder = DEFAULT_DATA_DIR if data_dir is None else Path(data_dir).expanduser()
    return read_torchvision_set(name, folder, download=download)


def sample_files(split: str) -> tuple[Path, Path]:
    """The bundled sample's images and labels; split is train or t10k."""
    return _SAMPLE_DIR / f"{split}-images-idx3-ubyte.gz", _SAMPLE_DIR / f"{split}-labels-idx1-ubyte.gz"


def _prepared(
    images: Images, limit: int | None, size: Size | None, seed: int, progress: OnProgress
) -> Images:
    if limit is not None:
        images = images.subset(balanced_subset(images.y, limit, seed))
    if size is not None:
        images = Images(resize_images(images.x, size, progress), images.y)
    return images


def _held_out(train: Images, share: float | None, seed: int) -> tuple[Images, Images | None]:
    """The images to learn from, and the validation images."""
    if not share:
        return train, None
    learnt, held = stratified_split(train.y, share, seed)
    if not len(held):
        raise DataError(
            f"validation {share:g}: expected a class of at least 2 training images, to hold one out; "
            "0 holds none out"
        )
    return train.subset(learnt), train.subset(held)


def _mean_and_std(x: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel, from exact integer sums."""
    total = np.zeros(x.shape[1], np.uint64)
    squares = np.zeros(x.shape[1], np.uint64)
    for start in range(0, len(x), _IMAGES_AT_ONCE):
        part = x[start : start + _IMAGES_AT_ONCE]
        total += part.sum((0, 2, 3), dtype=np.uint64)
        squares += np.square(part, dtype=np.uint16).sum((0, 2, 3), dtype=np.uint64)
    count = x.size // x.shape[1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean / 255, np.where(std > 0, std, 255.0) / 255


def _fingerprint(parts: Sequence[Images], class_names: list[str]) -> str:
    digest = hashlib.sha256(repr(class_names).encode())
    for images in parts:
        digest.update(repr(images.x.shape).encode())
        digest.update(np.ascontiguousarray(images.x).data)
        digest.update(images.y.astype("<i8").data)
    return digest.hexdigest()
