"""What a dataset's source holds before any image is read, and which images are for what."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from minicnn.data.contents import Contents, Files
from minicnn.data.errors import DataError
from minicnn.data.groups import group_names, group_split
from minicnn.data.scan import Listed, labels
from minicnn.data.split import balanced_subset, stratified_split

TEST_SHARE = 0.2
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
SHOWN = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}


@dataclass(frozen=True)
class Scanned:
    """The images that a source has, by part, with the classes' numbers.

    root:     the folder or file below which paths are told, and groups named
    at:       where the classes are, for messages
    contents: what reads the images
    sources:  a sentence on where the parts come from; empty if all is one part
    notes:    further lines to tell the user
    """

    root: Path
    at: Path
    class_names: list[str]
    parts: dict[str, Listed]
    contents: Contents = field(default_factory=Files)
    sources: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """The images of a source, by part, before any is decoded; ``notes`` are lines to tell the user."""

    root: Path
    class_names: list[str]
    parts: dict[str, Listed]
    notes: list[str]
    contents: Contents


def divide(
    scanned: Scanned, *, validation: float | None, group_by: str | None, limit_train: int | None,
    limit_test: int | None, seed: int,
) -> Found:  # fmt: skip
    """The images for training, for validation and for the test.

    A part that the source does not have is a share of the training images, chosen by ``seed``: a fifth of
    each class for the test, and ``validation`` of the rest.  With ``validation`` 0 nothing is held out, and
    what is for validation is the test where there is no other.

    ``group_by`` is a pattern of `group_names`: images of one group stay in one part.

    Raises:  DataError naming the source, or the class that has too few images
    """
    root, parts, notes, shares = scanned.root, dict(scanned.parts), [], []
    if validation == 0 and VALIDATION in parts:
        unused = parts.pop(VALIDATION)
        parts.setdefault(TEST, unused)
    if TRAIN not in parts:
        raise DataError(f"{scanned.at}: expected training images with labels, got none")
    if len(scanned.class_names) < 2:
        raise DataError(f"{scanned.at}: expected at least 2 classes, got {len(scanned.class_names)}")
    if group_by is not None:
        _refuse_torn_groups(root, parts, group_by)
    if TEST not in parts:
        _refuse_lone(scanned, parts[TRAIN])
        parts[TRAIN], parts[TEST] = _split(root, parts[TRAIN], TEST_SHARE, seed, group_by)
        shares.append("a fifth of the training images is kept for the test")
    limits = {TRAIN: limit_train, VALIDATION: limit_test, TEST: limit_test}
    parts = {part: limited(listed, limits[part], seed) for part, listed in parts.items()}
    if validation and VALIDATION not in parts:
        parts[TRAIN], parts[VALIDATION] = _split(root, parts[TRAIN], validation, seed, group_by)
        shares.append(f"a share of {validation:g} of the training images is held out for validation")
    parts = {part: parts[part] for part in PARTS if part in parts}
    if scanned.sources:
        notes.append("; ".join([scanned.sources, *shares]))
    notes += scanned.notes
    if group_by is not None:
        counts = (f"{len(_groups(root, listed, group_by)):,} {SHOWN[p]}" for p, listed in parts.items())
        notes.append(f"groups by {group_by}: {', '.join(counts)}")
    return Found(root, scanned.class_names, parts, notes, scanned.contents)


def _split(
    root: Path, listed: Listed, share: float, seed: int, group_by: str | None
) -> tuple[Listed, Listed]:
    """The rest, and the held part with this share of every class."""
    y = labels(listed)
    if group_by is None:
        rest, held = stratified_split(y, share, seed)
    else:
        rest, held = group_split(y, group_names(root, listed, group_by), share, seed)
    if not len(held):
        what = "images" if group_by is None else f"groups by {group_by}"
        raise DataError(f"{root}: expected a class of at least 2 training {what}, to hold one out")
    return [listed[i] for i in rest], [listed[i] for i in held]


def _refuse_lone(scanned: Scanned, listed: Listed) -> None:
    lone = np.flatnonzero(np.bincount(labels(listed)) == 1)
    if lone.size:
        what = (
            f"at least 2 images of the class {scanned.class_names[lone[0]]!r}, one to train and one to test"
        )
        raise DataError(f"{scanned.at}: expected {what}, got 1")


def _groups(root: Path, listed: Listed, group_by: str) -> set[str]:
    return set(group_names(root, listed, group_by).tolist())


def _refuse_torn_groups(root: Path, parts: dict[str, Listed], group_by: str) -> None:
    """Refuse a group whose images are in the folders of two parts."""
    for first, second in combinations(parts, 2):
        both = _groups(root, parts[first], group_by) & _groups(root, parts[second], group_by)
        if both:
            raise DataError(
                f"{root}: expected each group by {group_by} in one part, got {min(both)} among "
                f"{SHOWN[first]} and {SHOWN[second]} images"
            )


def limited(listed: Listed, limit: int | None, seed: int) -> Listed:
    """At most so many images, about the same number of each class, chosen by ``seed``; None takes all."""
    if limit is None:
        return listed
    return [listed[i] for i in balanced_subset(labels(listed), limit, seed)]
