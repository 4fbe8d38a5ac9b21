"""Reading files only if their content is the published one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from minicnn.data.errors import DataError
from minicnn.regular_file import read_regular

MOST_BYTES = 256 << 20
"""The largest file that is read.  The largest published one, of SVHN, has 182 million bytes."""


def read_verified(path: Path, md5: str) -> bytes:
    """The file's bytes, if ``md5`` is their MD5 sum.

    Raises:  DataError naming the file, if it cannot be read or has another sum
    """
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    got = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if got != md5:
        raise DataError(
            f"{path}: truncated or corrupt: expected MD5 {md5}, got {got}; delete it and get it again"
        )
    return data
