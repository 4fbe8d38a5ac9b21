"""Writing files so that a kill, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file aside in the same folder, sync it, rename it over ``path``, sync the folder.

    Whatever happens, ``path`` holds either the old content or all of the new.

    Raises: OSError naming the file and the reason (disk full, read-only folder); the old file stays.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def write_json(path: str | Path, value: Any) -> None:
    """`write_atomically` of an indented JSON document."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_json_lines(path: str | Path, values: list[dict[str, Any]]) -> None:
    """`write_atomically` of one JSON object a line."""
    write_atomically(path, "".join(json.dumps(value) + "\n" for value in values).encode())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows opens no folder, and syncs a new name by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
