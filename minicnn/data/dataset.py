"""Datasets by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data import sources
from minicnn.data.decode import IN_MEMORY, OnPlan, Plan, Work, no_plan
from minicnn.data.digits import read_digits
from minicnn.data.divide import divide
from minicnn.data.errors import DataError
from minicnn.data.facts import facts_of, mean_and_std
from minicnn.data.idx import read_idx_pair
from minicnn.data.images import Images
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.record import SplitRecord
from minicnn.data.resize import STRETCH, Size, height_width, resize_images
from minicnn.data.split import balanced_subset, stratified_split
from minicnn.data.summary import Summary
from minicnn.data.torchvision_sets import FASHION_MNIST_CLASSES, SOURCES, Splits, read_torchvision_set

SAMPLE = "fashion-mnist-sample"
DIGITS = "digits"
DEFAULT_DATA_DIR = Path("data")
_SAMPLE_DIR = Path(__file__).parent / "sample"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test images, decoded: in memory, or in a file that is mapped into it.

    validation:   to choose by, such as the best epoch; None if none are held out.  ``test`` chooses nothing
    mean, std:    float64 (C,) of the train pixels in [0, 1]; std is 1 for a channel that is constant
    fingerprint:  hexadecimal digest of all pixels, labels and class names; equal only for equal data
    one_shade:    how many train images show nothing, since all of their values are nearly the same
    record:       of a source, such as folder:DIR, which images are in which part; None of datasets by name
    notes:        lines that a user should see before training, such as images that two parts share
    summary:      what was found in a source; None for datasets by name
    root:         of a source, below which the paths of images are told; None for datasets by name
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
    one_shade: int = 0
    root: Path | None = None


def names() -> list[str]:
    """Names that ``load`` takes; besides these, what `sources.FORMS` lists, such as ``folder:DIR``."""
    return [SAMPLE, DIGITS, *SOURCES]


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    image_size: Size | None = None,
    resize: str = STRETCH,
    validation: float | None = None,
    group_by: str | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    seed: int = 0,
    download: bool = True,
    skip_bad: bool = False,
    cache: str | Path | None = None,
    in_memory: int = IN_MEMORY,
    progress: OnProgress = ignore,
    planned: OnPlan = no_plan,
) -> Dataset:
    """Read a whole dataset.

    Args:    name one of names(); or a source: folder:DIR, a folder with one folder of images for each
             class, csv:FILE, npz:FILE, tar:PATTERN or parquet:PATTERN
             data_dir where torchvision's datasets are, and where they are downloaded to (default: ./data);
             they are found in torchvision's layout, or as files in data_dir itself
             image_size resizes every image to a square of this side, or to (H, W)
             resize is how an image of other proportions gets this size: stretch, crop or pad
             validation is the share of the training images, below 1, that is held out to choose by, unless
             the source has images for that; each class keeps at least one image to learn from.  None takes
             those or nothing, 0 takes nothing
             group_by is a regular expression for the paths of a source: images of one group, such as a
             clip, stay in one part; `data.divide` says more
             limit_train, limit_test keep this many images, chosen by ``seed``, about the same number of
             each class
             seed also chooses the validation images, and splits sources and digits, if they have no test
             images of their own
             download lets torchvision, if it is installed, download what is not in data_dir
             skip_bad leaves out those of a source's files that are no intact images
             cache is the folder for decoded images that are too many for memory (default: in the user's
             cache); in_memory is the most bytes of a source's images that are kept in memory, as
             `decode.Work` counts them
             progress is called with (done, total) as images are decoded or resized; it may raise
             planned is called with a `decode.Plan` before images are decoded or resized; it may raise
    Raises:  DataError, one sentence that names the file, or says which files to put where; UnusableImages
             naming all files of a source that cannot be used
    """
    if sources.kind_of(name):
        work = Work(
            size=image_size, resize=resize, cache=None if cache is None else Path(cache),
            in_memory=in_memory, skip_bad=skip_bad, progress=progress, planned=planned,
        )  # fmt: skip
        return _of_source(name, work, validation, group_by, limit_train, limit_test, seed)
    if group_by is not None:
        raise DataError(f"group-by {group_by!r}: expected files with names, as in folder:DIR, got {name}")
    train, test, class_names = _read_named(name, data_dir, download, seed)
    train, test = _limited(train, limit_train, seed), _limited(test, limit_test, seed)
    shape = (train.shape[0], *(train.shape[1:] if image_size is None else height_width(image_size)))
    count = len(train) + len(test)
    planned(Plan(count, shape, len(class_names), 0 if image_size is None else count * math.prod(shape)))
    if image_size is not None:
        train = Images(resize_images(train.x, image_size, progress, resize), train.y)
        test = Images(resize_images(test.x, image_size, progress, resize), test.y)
    train, held = _held_out(train, validation, seed)
    facts = facts_of(train.pieces())
    mean, std = mean_and_std(facts, train.shape[1] * train.shape[2])
    fingerprint = _fingerprint(_parts(train, test, held), class_names)
    one_shade = int(facts.one_shade.sum())
    return Dataset(name, train, test, class_names, mean, std, fingerprint, held, one_shade=one_shade)


def _of_source(
    name: str, work: Work, validation: float | None, group_by: str | None, limit_train: int | None,
    limit_test: int | None, seed: int,
) -> Dataset:  # fmt: skip
    summary = Summary()
    found = divide(
        sources.scan(name, summary, validation), validation=validation, group_by=group_by,
        limit_train=limit_train, limit_test=limit_test, seed=seed,
    )  # fmt: skip
    read = sources.read(found, work, summary)
    mean, std = mean_and_std(read.facts, read.train.shape[1] * read.train.shape[2])
    parts = _parts(read.train, read.test, read.validation)

    def fingerprint() -> str:
        return _fingerprint(parts, read.class_names)

    store = read.decoded.store
    return Dataset(
        name, read.train, read.test, read.class_names, mean, std,
        store.remembered(_which(parts, read.class_names), fingerprint) if store else fingerprint(),
        read.validation, read.record, read.notes, summary, int(read.facts.one_shade.sum()), found.root,
    )  # fmt: skip


def _read_named(name: str, data_dir: str | Path | None, download: bool, seed: int) -> Splits:
    if name == SAMPLE:
        train, test = (
            read_idx_pair(*sample_files(split), len(FASHION_MNIST_CLASSES)) for split in ("train", "t10k")
        )
        return train, test, list(FASHION_MNIST_CLASSES)
    if name == DIGITS:
        return read_digits(seed)
    if name not in SOURCES:
        raise DataError(f"dataset: expected {', '.join((*names(), *sources.FORMS))}, got {name!r}")
    folder = DEFAULT_DATA_DIR if data_dir is None else Path(data_dir).expanduser()
    return read_torchvision_set(name, folder, download=download)


def sample_files(split: str) -> tuple[Path, Path]:
    """The bundled sample's images and labels; split is train or t10k."""
    return _SAMPLE_DIR / f"{split}-images-idx3-ubyte.gz", _SAMPLE_DIR / f"{split}-labels-idx1-ubyte.gz"


def _limited(images: Images, limit: int | None, seed: int) -> Images:
    return images if limit is None else images.subset(balanced_subset(images.y, limit, seed))


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


def _parts(train: Images, test: Images, validation: Images | None) -> list[Images]:
    return [train, test, *([validation] if validation else [])]


def _fingerprint(parts: Sequence[Images], class_names: list[str]) -> str:
    digest = hashlib.sha256(repr(class_names).encode())
    for images in parts:
        digest.update(repr((len(images), *images.shape)).encode())
        for piece in images.pieces():
            digest.update(np.ascontiguousarray(piece).data)
        digest.update(images.y.astype("<i8").data)
    return digest.hexdigest()


def _which(parts: Sequence[Images], class_names: list[str]) -> str:
    """A name for the fingerprint of these rows of a file."""
    digest = hashlib.sha256(repr(class_names).encode())
    for images in parts:
        assert images.rows is not None
        digest.update(repr(len(images)).encode())
        digest.update(images.rows.astype("<i8").data)
        digest.update(images.y.astype("<i8").data)
    return digest.hexdigest()
