"""Reader of CIFAR-10's and CIFAR-100's Python files, in torchvision's layout.

The files are pickles, and a pickle can run any code when it is read.  Therefore each file is read only if
its MD5 sum is the published one, and by an unpickler that builds only dicts, lists, strings, numbers and
uint8 arrays.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from minicnn.data.checksum import read_verified
from minicnn.data.errors import DataError
from minicnn.data.idx import check_labels
from minicnn.data.images import Images

_PIXELS = (3, 32, 32)


class Layout(NamedTuple):
    """The files of one dataset, each with its MD5 sum, and the keys of its labels and class names."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels_key: str
    names_key: str


CIFAR10 = Layout(
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels_key="labels",
    names_key="label_names",
)
CIFAR100 = Layout(
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels_key="fine_labels",
    names_key="fine_label_names",
)


def read_cifar(folder: Path, *, layout: Layout) -> tuple[Images, Images, list[str]]:
    """Train images, test images and class names; x (N,3,32,32).

    Raises:  DataError naming the file
    """
    (meta_file, meta_md5), *_ = layout.meta.items()
    class_names = [str(name) for name in _entries(folder / meta_file, meta_md5, layout.names_key)[0]]
    train, test = (
        _join(
            [
                _read_batch(folder / file, md5, layout.labels_key, len(class_names))
                for file, md5 in files.items()
            ]
        )
        for files in (layout.train, layout.test)
    )
    return train, test, class_names


def _join(batches: list[Images]) -> Images:
    return Images(np.concatenate([b.x for b in batches]), np.concatenate([b.y for b in batches]))


def _read_batch(path: Path, md5: str, labels_key: str, num_classes: int) -> Images:
    data, labels = _entries(path, md5, "data", labels_key)
    try:
        x, y = np.asarray(data, np.uint8).reshape(-1, *_PIXELS), np.asarray(labels, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected uint8 images of 3x32x32 and integer labels: {error}") from error
    if y.shape != (len(x),):
        raise DataError(f"{path}: expected {len(x)} labels, as many as images, got shape {y.shape}")
    check_labels(path, y, num_classes)
    return Images(x, y)


def _entries(path: Path, md5: str, *keys: str) -> list[Any]:
    """The values of these keys in a pickled dict."""
    try:
        entries = RestrictedUnpickler(io.BytesIO(read_verified(path, md5)), encoding="latin1").load()
        return [entries[key] for key in keys]
    except DataError:
        raise
    except Exception as error:  # a corrupt pickle can make an unpickler raise any exception
        raise DataError(f"{path}: expected a pickled dict with {', '.join(keys)}: {error!r}") from error


def _empty_array(*_: object) -> np.ndarray[Any, Any]:
    """An array that the unpickler then fills with the shape and the bytes of the pickle."""
    return np.empty(0, np.uint8)


def _uint8_dtype(name: str, *_: object) -> np.dtype[np.uint8]:
    if name != "u1":
        raise pickle.UnpicklingError(f"expected arrays of dtype u1, got {name}")
    return np.dtype(np.uint8)


class RestrictedUnpickler(pickle.Unpickler):
    """Admits only the globals of a pickled uint8 array, under NumPy's old and new module names."""

    _globals: ClassVar[dict[str, Callable[..., object] | None]] = {
        "numpy.core.multiarray._reconstruct": _empty_array,
        "numpy._core.multiarray._reconstruct": _empty_array,
        "numpy.ndarray": None,  # the argument of _reconstruct, which is not needed
        "numpy.dtype": _uint8_dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._globals[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted") from None
