"""Writing files so that a kill, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


def open_flags(*names: str) -> int:
    """Flags of os.open by name, such as "O_NOFOLLOW"; one that this system lacks counts for nothing."""
    return sum(getattr(os, name, 0) for name in names)


_NEW_FILE = open_flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a whole file as `new_file` does."""
    with new_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file aside in the same folder; after the block it is synced and renamed over ``path``.

    Whatever happens, ``path`` holds either the old content or all of the new.  The file aside is always a
    new one of its own name: no link that lies there is followed, and no other process writes to it.

    Raises: OSError naming the file and the reason (disk full, read-only folder); the old file stays.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _deleted_on_error(aside):
            with os.fdopen(os.open(aside, _NEW_FILE, 0o666), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        sync(path.parent.resolve())  # a folder may be reached by a link
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def delete_leftovers(folder: Path, names: tuple[str, ...]) -> None:
    """Delete what `new_file` left beside files of these names when it was killed."""
    for name in names:
        for aside in folder.glob(f".{name}.*tmp"):
            aside.unlink(missing_ok=True)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text, which has no infinite numbers.  Raises ValueError if the value has one, or a NaN."""
    return json.dumps(value, indent=indent, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """`write_atomically` of an indented JSON document."""
    write_atomically(path, (to_json(value, indent=2) + "\n").encode())


def write_json_lines(path: str | Path, values: list[dict[str, Any]]) -> None:
    """`write_atomically` of one JSON object a line."""
    write_atomically(path, "".join(to_json(value) + "\n" for value in values).encode())


@contextlib.contextmanager
def _deleted_on_error(path: Path) -> Iterator[None]:
    """Delete a file if what is done with it fails, for whatever reason."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file or folder, which is no link, has reached the disk."""
    if os.name != "posix" and path.is_dir():  # Windows opens no folder, and syncs a new name by itself
        return
    descriptor = os.open(path, os.O_RDONLY | open_flags("O_NOFOLLOW"))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
