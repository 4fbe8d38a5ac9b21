"""Decoded images in files: a folder of the user's own for each set of images and each way of decoding.

Such a folder holds ``pixels.npy`` uint8 (M,C,H,W), which is mapped into memory, the facts of the images as
further arrays, and ``about.json``.  It is written aside and renamed, so it is whole or not there.  Its name
is a digest of all that decides its content: paths, sizes and times of the files, the way they are decoded.
What somebody else may have written is not used (`minicnn.own_files`), and nothing in it is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from minicnn.data.contents import Contents
from minicnn.data.errors import DataError
from minicnn.data.facts import Facts, joined
from minicnn.data.images import describe_image
from minicnn.data.mapped import map_array
from minicnn.data.progress import OnProgress
from minicnn.data.summary import Look, Summary, different_sizes, refuse
from minicnn.data.workers import Job, Piece, decode_into
from minicnn.files import sync, to_json
from minicnn.memory import shown
from minicnn.own_files import NotOwn, check_folder, keep, make_folders, new_file, open_own, write_own

FORMAT = 1
REMEDY = "--cache DIR names another folder"
PIXELS, ABOUT = "pixels.npy", "about.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Store:
    """Decoded images x, uint8 (M,C,H,W), read-only, and their facts; black where an image is bad.

    ``summary`` is what JSON holds of a `Summary`, with numbers of images in place of paths.
    """

    folder: Path
    x: NDArray[np.uint8]
    facts: Facts
    summary: dict[str, Any]

    def remembered(self, name: str, compute: Callable[[], str]) -> str:
        """What ``compute`` gives, which depends on ``name`` and these images alone: computed once."""
        file = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.txt"
        try:
            with os.fdopen(open_own(file, stat.S_ISREG, REMEDY), "rb") as opened:
                return opened.read(1000).decode("ascii")
        except (OSError, ValueError):
            value = compute()
        with contextlib.suppress(OSError):
            write_own(file, value.encode("ascii"))
        return value

    def tell(self, summary: Summary, paths: Sequence[Path]) -> None:
        """Let a summary take up what the images are like."""
        summary.sizes.update({(h, w): count for h, w, count in self.summary["sizes"]})
        summary.modes.update(self.summary["modes"])
        summary.bad |= {paths[int(number)]: why for number, why in self.summary["bad"].items()}
        shades = np.flatnonzero(self.facts.one_shade)
        summary.one_shade += [
            paths[number] for number in shades.tolist() if paths[number] not in summary.bad
        ]
        summary.note_highest(self.summary["highest"])


def find_or_make(
    paths: Sequence[Path], contents: Contents, job: Job, cache: Path | None, found: Summary,
    progress: OnProgress, *, skip_bad: bool,
) -> Store:  # fmt: skip
    """The file of these images, each of which is there once; ``found`` takes up what they are like.

    Raises: UnusableImages, as `decode.decode`; DataError if no file can be kept
    """
    top = default_folder() if cache is None else Path(cache).expanduser().absolute()
    folder = top / _key(paths, contents, job)
    try:
        make_folders(top, REMEDY)
        check_folder(top, REMEDY)
        store = _find(folder, paths, contents, job)
        if store is None:
            with _locked(folder):
                store = _find(folder, paths, contents, job)
                if store is None:
                    _make(folder, paths, contents, job, found, progress)
                    store = _open(folder, len(paths), job)
    except NotOwn as error:
        raise DataError(str(error)) from error
    except OSError as error:
        size = shown(len(paths) * math.prod(job.shape))
        reason = error.strerror or error
        raise DataError(
            f"{top}: cannot keep {len(paths):,} decoded images there, {size}: {reason}; {REMEDY}"
        ) from error
    store.tell(found, paths)
    refuse(found, "", skip_bad=skip_bad)
    return store


def default_folder() -> Path:
    """Where decoded images are kept: ``images`` in the cache of compiled modules.

    Raises: DataError if there is no such folder
    """
    from minicnn.backends import module_cache
    from minicnn.backends.module_file import BuildError

    try:
        return module_cache.root() / "images"
    except BuildError as error:
        raise DataError(f"{error}, or {REMEDY}") from error


def holds_images(folder: Path) -> bool:
    """Whether a folder is the user's own, and there are decoded images in it."""
    try:
        check_folder(folder, REMEDY)
        return any(folder.glob(f"*/{ABOUT}"))
    except (NotOwn, OSError):
        return False


def _key(paths: Sequence[Path], contents: Contents, job: Job) -> str:
    whole_job = job.shape[1:], *job[1:]  # the channels are those of the first image, whichever that is
    digest, here = hashlib.sha256(repr((FORMAT, version("pillow"), whole_job)).encode()), str(Path.cwd())
    for path in paths:
        try:
            stamp: tuple[int, ...] = contents.stamp(path)
        except OSError:  # decoding it will tell why
            stamp = (-1,)
        whole = os.path.join(here, path)  # noqa: PTH118, several times as fast as Path's for many thousands
        digest.update(b"%b\0%b\0" % (os.fsencode(whole), repr(stamp).encode()))
    return digest.hexdigest()[:32]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process makes a folder; what killed ones left beside it is deleted first."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f"{folder.name}.lock"), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("waiting for another process that decodes the same images (%s)", lock.lock_file)
        lock.acquire()
    try:
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


# ---- reading ---------------------------------------------------------------------------------------


def _find(folder: Path, paths: Sequence[Path], contents: Contents, job: Job) -> Store | None:
    """The images that are kept in a folder; None if it is not there, torn, or out of date.

    An image that was bad may have been so for a passing reason: it is looked at again.
    """
    try:
        store = _open(folder, len(paths), job)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
        if isinstance(error, NotOwn):
            raise
        _log.info("%s is damaged, and made anew: %s", folder, error)
        return None
    for number in store.summary["bad"]:
        with contextlib.suppress(DataError):
            describe_image(paths[int(number)], channels=None, size=job.size, contents=contents)
            return None
    return store


def _open(folder: Path, count: int, job: Job) -> Store:
    check_folder(folder, REMEDY)
    with _opened(folder / ABOUT) as file:
        about = json.loads(file.read())
    channels, height, width = about["shape"]
    if (height, width) != job.shape[1:] or channels not in (1, 3):
        raise ValueError(f"{ABOUT}: expected images of {job.shape}, got {about['shape']}")
    summary = about["summary"]
    if not all(0 <= int(number) < count for number in summary["bad"]):
        raise ValueError(f"{ABOUT}: expected bad images from 0 to {count - 1}")
    with _opened(folder / PIXELS) as file:
        shape = (count, channels, height, width)
        _check_header(file, np.dtype(np.uint8), shape)
        x = map_array(file.fileno(), file.tell(), shape)
    expected = _empty_facts(count, channels)
    facts = Facts(*(_read(folder / f"{name}.npy", array) for name, array in expected._asdict().items()))
    return Store(folder, x, facts, summary)


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(open_own(path, stat.S_ISREG, REMEDY), "rb")


def _read(path: Path, like: NDArray[Any]) -> NDArray[Any]:
    with _opened(path) as file:
        _check_header(file, like.dtype, like.shape)
        content = file.read(like.nbytes + 1)
    if len(content) != like.nbytes:
        raise ValueError(f"{path.name}: expected {like.nbytes} bytes of values, got {len(content)}")
    return np.frombuffer(content, like.dtype).reshape(like.shape)


def _check_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Read a .npy file's header.  Raises ValueError if it is not of such an array in C order."""
    if npy.read_magic(file) != (1, 0):
        raise ValueError("expected a .npy file of version 1.0")
    got = npy.read_array_header_1_0(file)
    if got != (shape, False, dtype):
        raise ValueError(f"expected an array {dtype} {shape}, got {got}")


def _empty_facts(count: int, channels: int) -> Facts:
    sums = np.zeros((count, channels), np.uint64)
    return Facts(np.zeros(count, np.uint64), sums, sums, np.zeros(count, np.bool_))


# ---- writing ---------------------------------------------------------------------------------------


def _make(
    folder: Path, paths: Sequence[Path], contents: Contents, job: Job, found: Summary, progress: OnProgress
) -> None:
    """Decode all images into a folder aside, and rename it.

    Raises: OSError; UnusableImages if there are several sizes, and none is asked for
    """
    size = shown(len(paths) * math.prod(job.shape))
    _log.info("decoding %s images into %s, %s", f"{len(paths):,}", folder, size)
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    aside.mkdir(0o700)
    try:
        pieces = _decode_all(aside, paths, contents, job, found, progress)
        if pieces is None:  # all were grey, until one was not
            (aside / PIXELS).unlink()
            job = job._replace(shape=(3, *job.shape[1:]))
            pieces = _decode_all(aside, paths, contents, job, found, progress)
            assert pieces is not None
        facts = joined([piece.facts for piece in pieces if piece.facts is not None])
        for name, array in facts._asdict().items():
            _write(aside / f"{name}.npy", array)
        about = {"shape": job.shape, "summary": _summary(pieces)}
        with os.fdopen(new_file(aside / ABOUT), "wb") as file:
            file.write(to_json(about).encode())
        for written in aside.iterdir():
            sync(written)
        if folder.exists():  # damaged, or out of date; what is no folder of the user's own was refused
            shutil.rmtree(folder)
        keep(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _decode_all(
    aside: Path, paths: Sequence[Path], contents: Contents, job: Job, found: Summary, progress: OnProgress
) -> list[Piece] | None:
    """What came of the images, whose pixels are in the file then; None if the file lacks channels."""
    shape = (len(paths), *job.shape)
    offset = _make_room(aside / PIXELS, shape)
    pieces = []
    progress(0, len(paths))
    with contextlib.closing(decode_into(aside / PIXELS, offset, paths, contents, job)) as decoding:
        for piece in decoding:
            if piece.coloured:
                return None
            pieces.append(piece)
            progress(piece.start + len(piece.looks), len(paths))
    _refuse_different(pieces, paths, job, found)
    return pieces


def _make_room(path: Path, shape: tuple[int, ...]) -> int:
    """Make a .npy file of uint8 zeros, with all its room on the disk; returns where they begin."""
    with os.fdopen(new_file(path), "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        file.flush()
        offset = file.tell()
        end = offset + math.prod(shape)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, end)
        else:
            os.truncate(file.fileno(), end)
    return offset


def _write(path: Path, array: NDArray[Any]) -> None:
    with os.fdopen(new_file(path), "wb") as file:
        npy.write_array(file, array, (1, 0), allow_pickle=False)


def _summary(pieces: list[Piece]) -> dict[str, Any]:
    """What JSON holds of a summary: `Store.tell` reads it."""
    told, bad = Summary(), {}
    for piece in pieces:
        for number, look in enumerate(piece.looks, piece.start):
            if isinstance(look, str):
                bad[str(number)] = look
            else:
                told.sizes[look.size] += 1
                told.modes[look.mode] += 1
                told.note_highest(look.highest)
    sizes = [[*size, count] for size, count in told.sizes.items()]
    return {"sizes": sizes, "modes": dict(told.modes), "bad": bad, "highest": told.highest}


def _refuse_different(pieces: list[Piece], paths: Sequence[Path], job: Job, found: Summary) -> None:
    """Raise UnusableImages, with all that is bad, if images have several sizes."""
    looks = [look for piece in pieces for look in piece.looks]
    sizes = (
        (path, look.pixels[1:]) for path, look in zip(paths, looks, strict=True) if isinstance(look, Look)
    )
    other = next(((path, size) for path, size in sizes if size != job.shape[1:]), None)
    if other is None:
        return
    for path, look in zip(paths, looks, strict=True):
        if isinstance(look, str):
            found.note_bad(path, look)
        else:
            found.sizes[look.size] += 1
    path, size = other
    refuse(found, different_sizes(path, job.shape[1:], size), skip_bad=False)
