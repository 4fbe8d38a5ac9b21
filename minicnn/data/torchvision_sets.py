"""torchvision's datasets by name, read from torchvision's layout on disk without torch or torchvision.

If files are missing and torchvision is installed, torchvision downloads and verifies them.
"""

from __future__ import annotations

import http.client
import importlib
import socket
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicnn.data import cifar, svhn
from minicnn.data.errors import DataError
from minicnn.data.idx import find_idx, read_idx_pair
from minicnn.data.images import Images

_SECONDS_WITHOUT_DATA = 30.0

Splits = tuple[Images, Images, list[str]]
"""Train images, test images and class names."""


class Source(NamedTuple):
    """Where a dataset is on disk, how it is read, and how torchvision downloads it."""

    folder: str  # torchvision's folder for the files, below its root
    files: tuple[str, ...]
    read: Callable[[Path], Splits]
    torchvision_class: str
    downloads: tuple[dict[str, str], ...] = ({},)


def read_torchvision_set(name: str, data_dir: Path, *, download: bool) -> Splits:
    """Train images, test images and class names of one of SOURCES.

    The files lie where torchvision keeps them below ``data_dir``, in a folder of the dataset's name there,
    or in ``data_dir`` itself.  IDX files may bear any of the names that `find_idx` knows.

    Raises:  DataError naming the file, or saying which files to put where
    """
    source = SOURCES[name]
    found = _find(name, source, data_dir)
    if found is None:
        if not download:
            raise DataError(f"{name}: not found in {data_dir}; {_remedy(name, source, data_dir)}")
        _download(name, source, data_dir)
        found = _find(name, source, data_dir)
        if found is None:
            raise DataError(f"{name}: the download left files out; {_remedy(name, source, data_dir)}")
    return source.read(found)


def _find(name: str, source: Source, data_dir: Path) -> Path | None:
    """The folder that has all files, or None."""
    return next(
        (folder for folder in _places(name, source, data_dir) if not _missing(source, folder)), None
    )


def _places(name: str, source: Source, data_dir: Path) -> list[Path]:
    """Where the files may lie: torchvision's folder, the folder above it, one of the name, ``data_dir``."""
    own = data_dir / source.folder
    return list(
        dict.fromkeys([own, *own.parents[: len(Path(source.folder).parts)], data_dir / name, data_dir])
    )


def _missing(source: Source, folder: Path) -> list[str]:
    """Those of the files that the folder lacks."""
    return [file for file in source.files if find_idx(folder, file) is None]


def _remedy(name: str, source: Source, data_dir: Path) -> str:
    gzipped = " (or the same with .gz)" if source.files[0].endswith("ubyte") else ""
    missing = {folder: _missing(source, folder) for folder in _places(name, source, data_dir)}
    fullest = min(missing, key=lambda folder: len(missing[folder]))
    lacks = ""
    if len(missing[fullest]) < len(source.files):
        lacks = f"{fullest} has the other files, but not {', '.join(missing[fullest])}; "
    files, place = ", ".join(source.files), data_dir / source.folder
    return (
        f"{lacks}to use it offline, put {files}{gzipped} into {place} or name their folder with --data-dir"
    )


def _download(name: str, source: Source, data_dir: Path) -> None:
    try:
        dataset = getattr(importlib.import_module("torchvision.datasets"), source.torchvision_class)
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise DataError(
            f"{name}: not found in {data_dir}, and torchvision, which would download it, cannot be "
            f"imported ({error}): pip install torchvision; {_remedy(name, source, data_dir)}"
        ) from error
    try:
        with _network_timeout(_SECONDS_WITHOUT_DATA):
            for arguments in source.downloads:
                dataset(str(data_dir), download=True, **arguments)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: cannot be downloaded ({reason}); {_remedy(name, source, data_dir)}"
        ) from error


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Give up a connection that is silent for so long; torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_idx_set(
    folder: Path, *, prefixes: tuple[str, str], class_names: tuple[str, ...], transposed: bool = False
) -> Splits:
    splits = []
    for prefix in prefixes:
        images, labels = (find_idx(folder, file) or folder / file for file in _idx_files(prefix))
        split = read_idx_pair(images, labels, len(class_names))
        if transposed:
            split = Images(np.ascontiguousarray(split.x.transpose(0, 1, 3, 2)), split.y)
        splits.append(split)
    return splits[0], splits[1], list(class_names)


def _idx_files(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _idx_source(
    torchvision_class: str,
    class_names: tuple[str, ...],
    *,
    prefixes: tuple[str, str] = ("train", "t10k"),
    downloads: tuple[dict[str, str], ...] = ({},),
    transposed: bool = False,
) -> Source:
    files = tuple(file for prefix in prefixes for file in _idx_files(prefix))
    read = partial(_read_idx_set, prefixes=prefixes, class_names=class_names, transposed=transposed)
    return Source(f"{torchvision_class}/raw", files, read, torchvision_class, downloads)


def _cifar_source(torchvision_class: str, layout: cifar.Layout) -> Source:
    files = (*layout.train, *layout.test, *layout.meta)
    return Source(layout.folder, files, partial(cifar.read_cifar, layout=layout), torchvision_class)


FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
# EMNIST's balanced split counts a lower-case letter as its capital where the two look alike.
_EMNIST_CLASSES = tuple(string.digits + string.ascii_uppercase + "abdefghnqrt")

SOURCES: dict[str, Source] = {
    "mnist": _idx_source("MNIST", tuple(string.digits)),
    "fashion-mnist": _idx_source("FashionMNIST", FASHION_MNIST_CLASSES),
    "kmnist": _idx_source("KMNIST", _KMNIST_CLASSES),
    # EMNIST's files hold each image transposed; here they are turned upright, as a photograph would be.
    "emnist": _idx_source(
        "EMNIST",
        _EMNIST_CLASSES,
        prefixes=("emnist-balanced-train", "emnist-balanced-test"),
        downloads=({"split": "balanced"},),
        transposed=True,
    ),
    "cifar10": _cifar_source("CIFAR10", cifar.CIFAR10),
    "cifar100": _cifar_source("CIFAR100", cifar.CIFAR100),
    "svhn": Source("", tuple(svhn.MD5), svhn.read_svhn, "SVHN", ({"split": "train"}, {"split": "test"})),
}
