"""The images that a command's arguments name, and reading them ahead of their use."""

from __future__ import annotations

import glob
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.scan import find_images

STDIN = "-"
"""The argument that stands for a list of paths on stdin, one a line."""

MOST_READERS = 8

Image = NDArray[np.uint8]


def named_images(arguments: list[str]) -> tuple[Iterator[str], int | None]:
    """The paths of the images that the arguments name, in order, and how many there are.

    A folder stands for the images below it, a pattern such as ``photos/*.jpg`` or ``photos/**`` for what it
    matches, and "-" for the paths on stdin, each a line.  These are read as they come, so that nobody knows
    how many there will be: the number is None then.  What names no image is among the paths, so that
    whoever reads it is told why.
    """
    if STDIN in arguments:
        return _each(arguments), None
    found = list(_each(arguments))
    return iter(found), len(found)


def _each(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == STDIN:
            yield from _each(_lines())
        elif os.path.isdir(argument):  # noqa: PTH112 - a path costs more, of many files
            yield from [str(path) for path in find_images(Path(argument))] or [argument]
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            matches = _matches(argument)
            # a folder may match, and so may a file in it
            yield from dict.fromkeys(map(os.path.normpath, _each(matches))) if matches else [argument]
        else:
            yield argument


def _matches(pattern: str) -> list[str]:
    """What a pattern stands for; without folders where all that is below them matches too."""
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - pathlib takes no absolute pattern
    below_too = "**" in pattern and os.path.basename(pattern) in ("", "*", "**")  # noqa: PTH119
    return [one for one in found if not (below_too and os.path.isdir(one))]  # noqa: PTH112


def _lines() -> Iterator[str]:
    """The paths on stdin; bytes that are not UTF-8 are kept, as file names may have them."""
    for line in sys.stdin.buffer:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if name and name != STDIN:
            yield name


def read_ahead(
    paths: Iterable[str], read: Callable[[str], Image], *, readers: int, ahead: int
) -> Iterator[tuple[str, Image | DataError]]:
    """Each path with its image, or with what is wrong with it, in order.

    ``readers`` threads read; decoding leaves Python's lock.  At most ``ahead`` images are read, or being
    read, before they are asked for.
    """
    # Reading an image ignores warnings for a while, which is no affair of one thread: so all of them do.
    with warnings.catch_warnings(), ThreadPoolExecutor(readers) as pool:
        warnings.simplefilter("ignore")
        waiting: deque[tuple[str, Future[Image]]] = deque()
        try:
            for path in paths:
                waiting.append((path, pool.submit(read, path)))
                if len(waiting) > ahead:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(path: str, read: Future[Image]) -> tuple[str, Image | DataError]:
    try:
        return path, read.result()
    except DataError as error:
        return path, error
