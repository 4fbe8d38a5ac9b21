"""Files that nobody but their user can have written, and folders to keep such files in.

A folder or file is the user's own if it belongs to this user or to root, nobody else may write to it, and
no symbolic link leads to it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from minicnn.files import open_flags, sync

_OPEN = open_flags("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
_NEW = open_flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")


class NotOwn(ValueError):
    """A file or folder may be somebody else's, or there can be none; the message names it and a remedy."""


def open_own(path: Path, is_kind: Callable[[int], bool], remedy: str) -> int:
    """A descriptor of a file or folder of the user's own, which its own status shows.

    Args:   is_kind `stat.S_ISREG` or `stat.S_ISDIR` · remedy what else the user can do, for the message
    Raises: NotOwn; FileNotFoundError
    """
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotOwn(f"{path} is a symbolic link, which is not followed; {remedy}") from error
        raise NotOwn(f"cannot read {path}: {error.strerror}; {remedy}") from error
    reason = _distrust(path, os.fstat(descriptor), is_kind, remedy)
    if reason is not None:
        os.close(descriptor)
        raise NotOwn(reason)
    return descriptor


def check_folder(path: Path, remedy: str) -> None:
    """Raise NotOwn unless the folder is the user's own; FileNotFoundError if there is none."""
    os.close(open_own(path, stat.S_ISDIR, remedy))


def make_folders(folder: Path, remedy: str) -> None:
    """Make a folder, and those above it that are not there, for this user alone.

    Raises: NotOwn if that cannot be
    """
    for place in (*reversed(folder.parents), folder):
        try:
            place.mkdir(0o700)
        except FileExistsError:
            continue
        except OSError as error:
            if not place.is_dir():
                raise NotOwn(f"cannot make {place}: {error.strerror}; {remedy}") from error


def new_file(path: Path) -> int:
    """A descriptor of a new file that this user alone may read and write.  Raises OSError."""
    return os.open(path, _NEW, 0o600)


def keep(aside: Path, path: Path) -> None:
    """Give a file or folder that was written aside its name, once it is on the disk.  Raises OSError."""
    aside.chmod(0o700 if aside.is_dir() else 0o600)
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def write_own(path: Path, content: bytes) -> None:
    """Write a file aside, and `keep` it.  Raises OSError; nothing is left aside then."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = new_file(aside)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        keep(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _distrust(
    path: Path, status: os.stat_result, is_kind: Callable[[int], bool], remedy: str
) -> str | None:
    if not is_kind(status.st_mode):
        return f"{path} is not what the cache keeps there; remove it, or {remedy}"
    if os.name == "posix" and status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user (number {status.st_uid}); {remedy}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users can write to {path}; chmod go-w {path}, or {remedy}"
    return None
