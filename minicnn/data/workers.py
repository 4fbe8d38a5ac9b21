"""Decoding many images in processes of their own, into a file."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicnn.data.contents import Contents
from minicnn.data.errors import DataError
from minicnn.data.facts import Facts, facts_of
from minicnn.data.images import describe_image, image_size
from minicnn.data.resize import Size
from minicnn.data.summary import Look, look_at
from minicnn.files import open_flags

MOST_WORKERS = 64
_BYTES_OF_A_PIECE = 4 << 20


class Job(NamedTuple):
    """What each image becomes: uint8 of ``shape`` (C,H,W), as `images.read_image` does it."""

    shape: tuple[int, int, int]
    size: Size | None
    resize: str
    channels: int | None


class Piece(NamedTuple):
    """What came of the images from number ``start`` on: a `Look` each, or what is wrong with it.

    ``facts`` are of their rows in the file, in which bad images are black.
    """

    start: int
    looks: list[Look | str]
    facts: Facts | None
    coloured: bool
    """Whether an image has more channels than the file: nothing is in the file then."""


def decode_into(
    file: Path, offset: int, paths: Sequence[Path], contents: Contents, job: Job
) -> Generator[Piece]:
    """Decode images in parallel into the rows of a file, from ``offset`` on, and yield what came of them.

    Once one has another size than ``job.shape``, only the sizes of the rest are looked at.

    Raises: OSError if the file cannot be written; DataError if the processes end too early
    """
    step = max(1, min(64, _BYTES_OF_A_PIECE // math.prod(job.shape)))
    workers = min(processors(), MOST_WORKERS, -(-len(paths) // step))
    sizes_differ = False
    with _new_pool(workers, (str(file), offset, job)) as pool:
        waiting: deque[Future[Piece]] = deque()
        try:
            for start in range(0, len(paths), step):
                some = list(paths[start : start + step])
                with _interrupts_held():
                    waiting.append(pool.submit(_decode, start, some, contents.only(some), sizes_differ))
                while len(waiting) > 2 * workers or (waiting and start + step >= len(paths)):
                    piece = waiting.popleft().result()
                    sizes_differ = sizes_differ or not _fit(piece, job)
                    yield piece
        except BrokenProcessPool as error:
            raise DataError(
                "the processes that decode images ended too early: there is not enough memory for them, or "
                'the script that reads the dataset lacks its `if __name__ == "__main__":`'
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _new_pool(workers: int, work: tuple[str, int, Job]) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # no copy of this process with its threads and locks
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # which ends by letting SIGINT through
    with _interrupts_held():  # or a semaphore might be made that nothing takes away again
        return ProcessPoolExecutor(workers, context, _begin, work)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Within it Ctrl-C waits; processes started within do not hear it, from their first moment on."""
    came: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    masks = hasattr(signal, "pthread_sigmask")
    # The mask, which new processes inherit, does not keep the signal from other threads; Python then calls
    # the handler in the main one.
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if in_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fit(piece: Piece, job: Job) -> bool:
    return job.size is not None or all(
        isinstance(look, str) or look.pixels[1:] == job.shape[1:] for look in piece.looks
    )


# ---- in the other processes ------------------------------------------------------------------------

_work: tuple[int, int, Job]
"""The open file, where its first row begins, and the job."""


def _begin(file: str, offset: int, job: Job) -> None:
    global _work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the first one ends the rest
    _work = os.open(file, os.O_WRONLY | open_flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")), offset, job


def _end_with_parent() -> None:
    """End this process once the one that started it has ended, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _decode(start: int, paths: list[Path], contents: Contents, only_sizes: bool) -> Piece:
    descriptor, offset, job = _work
    looks: list[Look | str] = []
    block = np.zeros((len(paths), *job.shape), np.uint8)
    for row, path in zip(block, paths, strict=True):
        try:
            if only_sizes:
                size = image_size(path, contents)
                looks.append(Look(size, "", (0, *size), None))
                continue
            image = describe_image(
                path, channels=job.channels, size=job.size, resize=job.resize, contents=contents
            )
        except DataError as error:
            looks.append(str(error).removeprefix(f"{path}: "))
            continue
        look = look_at(image)
        looks.append(look)
        if look.pixels[1:] == job.shape[1:] and look.pixels[0] <= job.shape[0]:
            row[:] = image.pixels
    fit = all(isinstance(look, str) or look.pixels[1:] == job.shape[1:] for look in looks)
    if only_sizes or not fit:
        return Piece(start, looks, None, coloured=False)
    if any(not isinstance(look, str) and look.pixels[0] > job.shape[0] for look in looks):
        return Piece(start, looks, None, coloured=True)
    _write(descriptor, memoryview(block.reshape(-1).data), offset + start * math.prod(job.shape))
    return Piece(start, looks, facts_of([block]), coloured=False)


def _write(descriptor: int, content: memoryview, place: int) -> None:
    while content:
        done = os.pwrite(descriptor, content, place)
        content, place = content[done:], place + done
