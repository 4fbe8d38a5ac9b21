"""The folder where modules that are built on first use are kept, and what of it may be used.

A module runs with all rights of its user.  So nothing is used that somebody else may have put there: the
cache's folder, the folders in it and every file must belong to this user or to root, nobody else may be
able to write to them, and symbolic links are not followed.  All that is written is synced before it gets
its name.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minicnn import own_files

from .module_file import BuildError

_log = logging.getLogger("minicnn.backends.build")  # also where setup.py loads this file on its own

REMEDY = "set MINICNN_CACHE to the absolute path of a folder of your own"


def root() -> Path:
    """The cache's folder: MINICNN_CACHE, or ``minicnn`` in the user's cache (XDG_CACHE_HOME or ~/.cache).

    Raises: BuildError if there is none, or if MINICNN_CACHE is no absolute path.  A relative
            XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks.
    """
    given = os.environ.get("MINICNN_CACHE")
    if given is not None:
        if not Path(given).is_absolute():
            raise BuildError(f"MINICNN_CACHE: expected an absolute path, got {given!r}; {REMEDY}")
        return Path(given)
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (user if user.is_absolute() else _home() / ".cache") / "minicnn"


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:  # there is no HOME, and the system does not know this user
        home = Path()
    if not home.is_absolute():
        raise BuildError(f"there is no home folder to keep modules in; {REMEDY}")
    return home


# ---- what may be used ------------------------------------------------------------------------------


def read(path: Path) -> bytes:
    """The content of a file of the cache.

    Raises: BuildError if somebody else may have written it; FileNotFoundError
    """
    _check_folders(path.parent)
    descriptor = _open(path, stat.S_ISREG)
    with os.fdopen(descriptor, "rb") as file:
        try:
            return file.read()
        except OSError as error:
            raise BuildError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error


def refusal(folder: Path) -> str | None:
    """Why nothing can be kept in a folder of the cache, and how to fix it; None if it seems possible."""
    try:
        _check_folders(folder)
    except BuildError as error:
        return str(error)
    except FileNotFoundError:
        pass
    existing = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    return f"cannot write to {existing}; {REMEDY}"


def _check_folders(folder: Path) -> None:
    """The folder and those above it, up to the cache's own, are to be trusted.

    Raises: BuildError with the reason if one is not; FileNotFoundError
    """
    top = root()
    for place in (top, *(top / part for part in _below(top, folder))):
        os.close(_open(place, stat.S_ISDIR))


def _below(top: Path, folder: Path) -> list[Path]:
    """The relative paths from the top down to the folder."""
    relative = folder.relative_to(top)
    return [*reversed(relative.parents), relative][1:]


def _open(path: Path, is_kind: Callable[[int], bool]) -> int:
    """A descriptor of a file or folder that is to be trusted, which its own status shows."""
    try:
        return own_files.open_own(path, is_kind, REMEDY)
    except own_files.NotOwn as error:
        raise BuildError(str(error)) from error


# ---- writing ---------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Make a folder of the cache, and those above it, for this user alone.

    Raises: BuildError if that cannot be, or if a folder that is there is not to be trusted
    """
    try:
        own_files.make_folders(folder, REMEDY)
    except own_files.NotOwn as error:
        raise BuildError(str(error)) from error
    _check_folders(folder)


def write(path: Path, text: str) -> None:
    """Write a file of the cache aside, and `keep` it.  Raises OSError."""
    own_files.write_own(path, text.encode())


def keep(aside: Path, path: Path) -> None:
    """Give a file that was written aside its name, after it has reached the disk.  Raises OSError."""
    own_files.keep(aside, path)


@contextmanager
def locked(folder: Path, timeout: float = 600.0) -> Iterator[None]:
    """Hold a folder of the cache; the system frees it when its holder ends, even if it crashes.

    Raises: BuildError if another process holds it for longer than ``timeout`` seconds
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", mode=0o600)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that is building ({lock.lock_file})")
            lock.acquire(timeout=timeout, poll_interval=0.2)
    except Timeout:
        raise BuildError(
            f"another process has held {lock.lock_file} for {timeout:.0f} s; end it and try again"
        ) from None
    except OSError as error:
        raise BuildError(f"cannot lock {lock.lock_file}: {error.strerror}; {REMEDY}") from error
    try:
        yield
    finally:
        lock.release()


def say(text: str) -> None:
    """Log what takes long; the commands show the log on stderr."""
    _log.info("%s", text)
