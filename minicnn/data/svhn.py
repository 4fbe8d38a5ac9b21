"""Reader of SVHN's cropped digits: MATLAB files, as torchvision keeps them."""

from __future__ import annotations

import io
import string
from pathlib import Path

import numpy as np

from minicnn.data.checksum import read_verified
from minicnn.data.errors import DataError
from minicnn.data.idx import check_labels
from minicnn.data.images import Images

MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def read_svhn(folder: Path) -> tuple[Images, Images, list[str]]:
    """Train images, test images and class names; x (N,3,32,32).  The files' label 10 becomes 0, the digit.

    Raises:  DataError naming the file
    """
    train, test = (_read_mat(folder / file, md5) for file, md5 in MD5.items())
    return train, test, list(string.digits)


def _read_mat(path: Path, md5: str) -> Images:
    from scipy.io import loadmat

    data = read_verified(path, md5)
    try:
        entries = loadmat(io.BytesIO(data))
        x, y = entries["X"], entries["y"].astype(np.int64).ravel()
    except Exception as error:  # a broken file can make loadmat raise any exception
        raise DataError(f"{path}: expected a MATLAB file with X and y: {error!r}") from error
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[2:] != (3, len(y)):
        raise DataError(f"{path}: expected X uint8 (H, W, 3, {len(y)}), got {x.dtype} {x.shape}")
    y[y == 10] = 0
    check_labels(path, y, 10)
    return Images(np.ascontiguousarray(x.transpose(3, 2, 0, 1)), y)
