"""Finding the images of a folder: class folders, and the files in them.

Nothing is dropped without a word: whatever is not listed is in a `Summary`, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.formats import HEAD, format_of, is_image_name
from minicnn.data.leftovers import is_leftover
from minicnn.data.summary import Summary, UnusableImages, bad_files

Listed = list[tuple[Path, int]]
"""Paths of images, each with its class's number."""

IMAGE, FOLDER, BAD = "image", "folder", "bad"
"""What a name in a folder may stand for, besides what is passed over:"""

LEFTOVER = "left by a system or a tool"
HIDDEN = "hidden"
NO_CLASS = "beside the class folders"
NO_PART = "beside the folders of the parts"
NO_IMAGE = "no image"
NO_FILE = "a pipe, a socket or a device"
AGAIN = "a link to a folder that is read elsewhere"

_Identity = tuple[int, int]
"""Device and number of a folder: the same, whichever links lead there."""


def class_folders(root: Path, summary: Summary | None = None, *, least: int = 2) -> list[str]:
    """The names of the class folders of ``root``, in order.

    What else is there is noted in ``summary``.

    Raises: DataError if there are fewer than ``least``, or if ``root`` cannot be read
    """
    found = Summary() if summary is None else summary
    names = []
    for entry in _entries(root):
        reason = _reason_of_name(entry.name) or ("" if entry.is_dir() else NO_CLASS)
        if reason:
            found.pass_over(reason, entry)
        else:
            names.append(entry.name)
    if len(names) < least:
        raise DataError(
            f"{root}: expected at least {least} class folders, got {len(names)}{_besides(root, found)}"
        )
    return names


def note_others(root: Path, parts: list[Path], summary: Summary) -> None:
    """Note what ``root`` has besides the folders that are its parts, such as ``train`` and ``test``."""
    for entry in _entries(root):
        if entry not in parts:
            summary.pass_over(_reason_of_name(entry.name) or NO_PART, entry)


def find_images(folder: Path) -> list[Path]:
    """The images at any depth below a folder, sorted, as `list_images` knows them.

    What cannot be looked into is among them, so that whoever reads it is told why.
    """
    found = Summary()
    return sorted([*_walk(folder, _identities(folder, []), found), *found.bad])


def list_images(
    root: Path, class_names: list[str], summary: Summary | None = None, *, may_be_empty: bool = False
) -> Listed:
    """The images of each class, at any depth, sorted.

    An image is a file whose name or content says so.  Links are followed, to each folder once.  What else
    is there is noted in ``summary``, and so is what cannot be looked into; without one, that is an error.

    Raises: DataError naming a class that has no images, unless it ``may_be_empty``, or that is a link to
            the folder of another
    """
    found = Summary() if summary is None else summary
    seen = _identities(root, class_names)
    listed = []
    for label, name in enumerate(class_names):
        # By their parts, as paths are compared, but many times as fast.
        images = sorted(_walk(root / name, seen, found), key=lambda path: path.parts)
        if not images and not may_be_empty:
            what = f"expected images of the class {name!r}, got none"
            raise DataError(f"{root / name}: {what}{_besides(root / name, found)}")
        listed += [(image, label) for image in images]
    if summary is None and found.bad:
        raise UnusableImages([bad_files(found)], found)
    return listed


def labels(listed: Listed) -> NDArray[np.int64]:
    """The classes' numbers (N,)."""
    return np.array([label for _, label in listed], np.int64)


def name_below(root: Path, path: Path) -> str:
    """The path below ``root``, or all of it if it is elsewhere, with ``/`` between the folders."""
    above, parts = root.parts, path.parts
    if parts[: len(above)] != above or len(parts) == len(above):
        return path.as_posix()
    return "/".join(parts[len(above) :])


def _walk(top: Path, seen: set[_Identity], found: Summary) -> Iterator[Path]:
    """The images below a folder; all else goes to ``found``."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            entries = _scanned(folder)
        except DataError as error:
            found.note_bad(folder, str(error))
            continue
        for entry in entries:
            path = folder / entry.name
            kind = _kind(entry, path, seen, found)
            if kind == IMAGE:
                yield path
            elif kind == FOLDER:
                folders.append(path)
            elif kind != BAD:
                found.pass_over(kind, path)


def _kind(entry: os.DirEntry[str], path: Path, seen: set[_Identity], found: Summary) -> str:
    """IMAGE, FOLDER, BAD, which is noted, or why the file or folder is passed over.

    Of a plain file whose name says what it is, nothing is asked that its folder has not told.
    """
    if reason := _reason_of_name(entry.name):
        return reason
    try:
        if entry.is_dir():
            status = path.stat()
            is_new = (status.st_dev, status.st_ino) not in seen
            seen.add((status.st_dev, status.st_ino))
            return FOLDER if is_new else AGAIN
        if not entry.is_file():
            entry.stat()  # where a link leads nowhere, only this says so
            return NO_FILE
        if is_image_name(entry.name):
            return IMAGE
        with path.open("rb") as file:
            return IMAGE if format_of(file.read(HEAD)) else NO_IMAGE
    except FileNotFoundError:
        found.bad[path] = "a link to what is not there"
    except OSError as error:
        found.bad[path] = f"cannot be read: {error.strerror}"
    return BAD


def _reason_of_name(name: str) -> str:
    """Why a file or folder of this name is passed over; empty if it is not."""
    if is_leftover(name):
        return LEFTOVER
    return HIDDEN if name.startswith(".") else ""


def _entries(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _scanned(folder)]


def _scanned(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name.  Raises DataError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _identities(root: Path, class_names: list[str]) -> set[_Identity]:
    """Folders that no link leads into: ``root`` and all above it, and the class folders.

    Raises: DataError if a class folder is itself a link to one of these
    """
    seen: dict[_Identity, Path] = {}
    for folder in (*reversed(root.resolve().parents), root, *(root / name for name in class_names)):
        if folder.is_dir():
            status = folder.stat()
            first = seen.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                raise DataError(f"{folder}: expected a folder of its own, got a link to {first}")
    return set(seen)


def _besides(folder: Path, found: Summary) -> str:
    """What there is in place of images, for the end of a message."""
    bad = [f"{path}: {why}" for path, why in found.bad.items() if path.is_relative_to(folder)]
    parts = bad[:1]
    for reason, paths in found.passed_over.items():
        if inside := [path for path in paths if path.is_relative_to(folder)]:
            parts.append(f"{len(inside)} passed over as {reason}, such as {inside[0].name}")
    return f" ({'; '.join(parts)})" if parts else ""
