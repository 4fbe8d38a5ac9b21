"""Reading files that somebody else may have put there: regular ones, of a limited size.

A FIFO or a device under a harmless name would be waited for without end, or read without end; a sparse file
has any size at no cost.  Links are followed: what counts is what they lead to.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from minicnn.files import open_flags

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip

_READ = open_flags("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, without waiting for it.

    Raises: OSError naming the file and the reason: it is missing, of another kind or not readable
    """
    _refuse_other_kinds(path, Path(path).stat())  # opening a device may already do something to it
    descriptor = os.open(path, _READ)
    try:
        _refuse_other_kinds(path, os.fstat(descriptor))  # it may be another one by now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file.

    Raises: OSError as `open_regular` does, or if the file has more than ``most`` bytes
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # One byte more, to see that a file grows; never ``most`` bytes of memory for a small file.
        content = file.read(size + 1) if size <= most else b""
        if size > most or len(content) > most:
            raise OSError(errno.EFBIG, f"expected at most {most:,} bytes, got more", str(path))
        return content


def _refuse_other_kinds(path: str | Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"expected a regular file, got {kind}", str(path))
