"""Decoding the images that were found into one array: in memory, or in a file if they are too many."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minicnn.data import stored
from minicnn.data.contents import Contents, Files
from minicnn.data.errors import DataError
from minicnn.data.facts import Facts, facts_of
from minicnn.data.images import Images, describe_image, image_size
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.resize import STRETCH, Size
from minicnn.data.scan import Listed, labels
from minicnn.data.summary import Summary, different_sizes, look_at, refuse
from minicnn.data.workers import Job
from minicnn.memory import check_memory

IN_MEMORY = 500_000_000
"""Bytes of decoded images that are kept in memory, unless the caller says otherwise."""

_MOST_TRIED = 100
"""As many images are tried to learn what decoded ones are like; a list that begins worse is hopeless."""


class Plan(NamedTuple):
    """What decoding will come to, before it begins."""

    images: int
    shape: tuple[int, int, int]
    """(C,H,W) of an image."""
    classes: int
    memory: int
    """Bytes of memory that the decoded images are yet to take; 0 if they go to a file."""


OnPlan = Callable[[Plan], None]
"""Called with the plan before anything is decoded; it may raise, which ends the work."""


def no_plan(_: Plan) -> None:
    """The plan that nobody looks at."""


@dataclass(frozen=True)
class Work:
    """How images are decoded, and where they go to.

    size, resize, channels: as `images.read_image` takes them; no ``channels``: 1 if all are grey, else 3
    cache:     the folder of files of decoded images; by default in the user's cache
    in_memory: the most bytes of decoded images that are kept in memory, if all have as many channels as the
               first: up to three times as many if that one is grey and another is not; more go to a file
    skip_bad:  leave out what is no intact image
    progress, planned: are called with how far the work is, and before it begins
    """

    size: Size | None = None
    resize: str = STRETCH
    channels: int | None = None
    cache: Path | None = None
    in_memory: int = IN_MEMORY
    skip_bad: bool = False
    progress: OnProgress = ignore
    planned: OnPlan = no_plan


@dataclass(frozen=True, eq=False)
class Decoded:
    """Decoded images: N rows of x, uint8 (M,C,H,W), with their facts; all in order if ``rows`` is None.

    ``store`` is the file that has them, if any.
    """

    x: NDArray[np.uint8]
    facts: Facts
    rows: NDArray[np.int64] | None = None
    store: stored.Store | None = None

    def part(self, start: int, listed: Listed) -> tuple[Images, Facts]:
        """The images from number ``start`` on, which were read from this list."""
        numbers = np.arange(start, start + len(listed))
        y, paths = labels(listed), tuple(path for path, _ in listed)
        if self.rows is None:
            images = Images(self.x[start : start + len(listed)], y, paths)
        else:
            images = Images(self.x, y, paths, self.rows[numbers])
        return images, self.facts.of(numbers)


def decode(
    listed: Listed, work: Work = Work(), *, contents: Contents | None = None, summary: Summary | None = None
) -> Decoded:
    """The images, without those that are bad: `without_bad` leaves these out of ``listed`` too.

    ``summary`` takes up what the files are like.

    Raises: UnusableImages naming all files that are no intact images, or telling the sizes if there are
            several and no size is asked for; NotEnoughMemory if all together are too large; DataError if a
            file of decoded images cannot be kept
    """
    contents = Files() if contents is None else contents
    found = Summary() if summary is None else summary
    plan = _plan(listed, contents, work)
    if plan is not None:
        work.planned(plan)
        if plan.memory == 0:
            return _in_file(listed, contents, work, plan, found)
    images, different = _in_memory(listed, contents, work, found)
    refuse(found, different, skip_bad=work.skip_bad and bool(images))
    x = _stacked(images)
    facts = facts_of(_few_at_a_time(x))
    good = without_bad(listed, found)
    found.one_shade += [good[number][0] for number in np.flatnonzero(facts.one_shade)]
    return Decoded(x, facts)


def without_bad(listed: Listed, summary: Summary) -> Listed:
    """What remains of a list when the files that cannot be used are left out."""
    if not summary.bad:
        return listed
    return [(path, label) for path, label in listed if path not in summary.bad]


def refuse_lost_classes(listed: Listed, summary: Summary, class_names: list[str]) -> None:
    """Raise DataError naming a class of which `without_bad` leaves nothing, and its first image."""
    left = {label for _, label in without_bad(listed, summary)}
    for path, label in listed:
        if label not in left:
            what = f"expected an image of the class {class_names[label]!r} that can be used, got none"
            raise DataError(f"{path}: {what}: {summary.bad[path]}")


def _plan(listed: Listed, contents: Contents, work: Work) -> Plan | None:
    """The plan by the first image that can be decoded; None if there seems to be none."""
    for path, _ in listed[:_MOST_TRIED]:
        try:
            image = describe_image(
                path, channels=work.channels, size=work.size, resize=work.resize, contents=contents
            )
        except DataError:
            continue
        channels, height, width = image.pixels.shape
        classes = max(label for _, label in listed) + 1
        memory = len(listed) * image.pixels.size
        return Plan(
            len(listed), (channels, height, width), classes, memory if memory <= work.in_memory else 0
        )
    return None


def _in_file(listed: Listed, contents: Contents, work: Work, plan: Plan, found: Summary) -> Decoded:
    by_name = {str(path): path for path, _ in listed}  # texts keep their hash, paths do not
    names = sorted(by_name)
    paths = [by_name[name] for name in names]
    job = Job(plan.shape, work.size, work.resize, work.channels)
    store = stored.find_or_make(
        paths, contents, job, work.cache, found, work.progress, skip_bad=work.skip_bad
    )
    numbers = {name: number for number, name in enumerate(names)}
    rows = np.array([numbers[str(path)] for path, _ in without_bad(listed, found)], np.int64)
    return Decoded(store.x, store.facts.of(rows), rows, store)


def _in_memory(
    listed: Listed, contents: Contents, work: Work, found: Summary
) -> tuple[list[NDArray[np.uint8]], str]:
    """The images, each (C,H,W), and what to say if their sizes differ."""
    images: list[NDArray[np.uint8]] = []
    different, largest = "", 0
    for number, (path, _) in enumerate(listed):
        work.progress(number, len(listed))
        try:
            if different:  # the sizes of the rest are told too, but nothing more is decoded
                found.sizes[image_size(path, contents)] += 1
                continue
            image = describe_image(
                path, channels=work.channels, size=work.size, resize=work.resize, contents=contents
            )
        except DataError as error:
            found.note_bad(path, str(error))
            continue
        found.take_up(look_at(image))
        images.append(image.pixels)
        if image.pixels.size > largest:
            largest = image.pixels.size
            _check_memory(len(listed), images, work.size)
        if images[-1].shape[1:] != images[0].shape[1:]:
            different = different_sizes(path, images[0].shape[1:], images[-1].shape[1:])
    return images, different


def _check_memory(count: int, images: list[NDArray[np.uint8]], size: Size | None) -> None:
    """Refuse ``count`` images like the last one, the largest yet; those before it have their memory."""
    shape = images[-1].shape
    remedy = "--image-size N scales all to N by N pixels" if size is None else "--image-size can be smaller"
    what = f"decoding {count:,} images of {'x'.join(map(str, shape))}"
    need = count * math.prod(shape) - sum(image.size for image in images[:-1])
    check_memory(need, what, f"{remedy}, --limit-train N takes fewer")


def _stacked(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    channels = max(len(image) for image in images)
    x = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for i in reversed(range(len(images))):
        x[i] = images.pop()  # each image is freed once copied, so that memory never holds all of them twice
    return x


def _few_at_a_time(x: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return list(Images(x, np.zeros(len(x), np.int64)).pieces())
