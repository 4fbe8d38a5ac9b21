"""A disk that fails in the nth call that opens, writes, syncs, renames or makes something, for tests.

    with failing.disk(folder, "fsync", 3) as calls:
        save()

A failing write has written half.  Other folders than the one that is named work as ever, and a test that
counts the calls of a run without a failure knows all places where one can be.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

KINDS = ("open", "write", "fsync", "replace", "mkdir")


class _Half:
    """A file whose writes are counted; the one that fails writes half."""

    def __init__(self, file: Any, count: Callable[[], bool]) -> None:
        self._file, self._count = file, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Half:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        if self._count():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise _error()
        return int(self._file.write(data))


@contextmanager
def disk(folder: Path, kind: str, number: int = 0) -> Iterator[list[str]]:
    """Let the call of this number (from 1; 0 for none) of a kind fail, as a full disk does.

    Yields the calls as they come, each as the path that it was for
    """
    assert kind in KINDS
    calls: list[str] = []

    def count(path: object) -> bool:
        """Whether this call is to fail."""
        if not str(path).startswith(str(folder)):
            return False
        calls.append(str(path))
        return len(calls) == number

    def wrapped(name: str, path_of: Callable[..., object]) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if count(path_of(*arguments)):
                raise _error()
            return real(*arguments, **options)

        return mock.patch.object(os, name, call)

    def opened(real: Any) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            found = real(file, mode, *arguments, **options)
            if mode.startswith("r") and "+" not in mode:
                return found
            path = _path_of(found.fileno())
            return _Half(found, lambda: count(path))

        return call

    if kind == "write":
        with (
            mock.patch.object(io, "open", opened(io.open)),
            mock.patch.object(os, "fdopen", opened(os.fdopen)),
        ):
            yield calls
        return
    path_of: dict[str, Callable[..., object]] = {
        "open": lambda path, flags, *_: path if flags & (os.O_WRONLY | os.O_RDWR) else "",
        "fsync": lambda descriptor: _path_of(descriptor),
        "replace": lambda source, _target: source,
        "mkdir": lambda path, *_: path,
    }
    with wrapped(kind, path_of[kind]):
        yield calls


def _path_of(descriptor: int) -> str:
    link = Path(f"/proc/self/fd/{descriptor}")
    if not link.exists():
        pytest.skip("the system does not tell which file a descriptor is of")
    return str(link.readlink())


def _error() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
