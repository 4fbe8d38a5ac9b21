"""Reader of folder:DIR, a folder with one folder of images for each class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from minicnn.data import duplicates
from minicnn.data.decode import decode, without_bad
from minicnn.data.errors import DataError
from minicnn.data.groups import group_names, group_split
from minicnn.data.images import Images, Size
from minicnn.data.parts import classes, lacking, list_part, part_folders, part_of
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.record import SplitRecord
from minicnn.data.scan import Listed, class_folders, labels, list_images, note_others
from minicnn.data.split import balanced_subset, stratified_split
from minicnn.data.summary import Summary

TEST_SHARE = 0.2
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
_SHOWN = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}


@dataclass(frozen=True)
class Found:
    """The images of a folder, by part, before any is decoded; ``notes`` are lines to tell the user."""

    class_names: list[str]
    parts: dict[str, Listed]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class FolderImages:
    """The decoded images of a folder."""

    train: Images
    validation: Images | None
    test: Images
    class_names: list[str]
    record: SplitRecord
    notes: list[str]


def read_folder(
    root: Path,
    *,
    image_size: Size | None,
    validation: float | None = None,
    group_by: str | None = None,
    limit_train: int | None,
    limit_test: int | None,
    seed: int,
    summary: Summary | None = None,
    skip_bad: bool = False,
    progress: OnProgress = ignore,
) -> FolderImages:
    """The parts of a folder of images, as `find` finds them.

    ``summary`` takes up what is found.  With ``skip_bad``, files that are no intact images are left out.

    The limits choose images before any is decoded.  If all that are chosen are grey, x is (N,1,H,W), else
    all become RGB, (N,3,H,W).  ``progress`` is called before each is decoded.

    Raises:  DataError naming the file or folder
    """
    summary = Summary() if summary is None else summary
    found = find(
        root, validation=validation, group_by=group_by, limit_train=limit_train, limit_test=limit_test,
        seed=seed, summary=summary,
    )  # fmt: skip
    everything = [image for part in found.parts.values() for image in part]
    x = decode(everything, image_size, summary=summary, skip_bad=skip_bad, progress=progress)
    images: dict[str, Images] = {}
    notes, start = list(found.notes), 0
    for name, part in found.parts.items():
        listed = without_bad(part, summary, may_be_empty=name != TRAIN)
        end = start + len(listed)
        images[name] = Images(x[start:end], labels(listed), tuple(path for path, _ in listed))
        if name != TRAIN:
            notes += lacking(_SHOWN[name], images[name].y.tolist(), found.class_names)
        start = end
    shown = {_SHOWN[name]: part for name, part in images.items()}
    names = [path.relative_to(root).as_posix() for path in images[TEST].paths or ()]
    record = SplitRecord.of_images({name: part.x for name, part in images.items()}, names)
    return FolderImages(
        images[TRAIN], images.get(VALIDATION), images[TEST], found.class_names, record,
        [*notes, *duplicates.tell(shown)],
    )  # fmt: skip


def find(
    root: Path, *, validation: float | None, group_by: str | None, limit_train: int | None,
    limit_test: int | None, seed: int, summary: Summary | None = None,
) -> Found:  # fmt: skip
    """Which images of a folder are for training, for validation and for the test.

    ``root`` has one folder for each class, or parts such as ``train/``, ``val/`` and ``test/`` with one
    folder for each class; `parts` knows the usual names.  A part that has no folder is a share of the
    training images, chosen by ``seed``: a fifth of each class for the test, and ``validation`` of the rest.
    With ``validation`` 0 nothing is held out, and ``val/`` is the test where there is no ``test/``.

    ``group_by`` is a pattern of `group_names`: images of one group stay in one part.  Classes are numbered
    in the order of their names.  Images are the files at any depth below the class's folder whose name or
    content says so; what is passed over, and why, is noted in ``summary``.

    Raises:  DataError naming the file or folder
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one folder of images a class, got no such folder")
    folders = part_folders(root)
    if validation == 0 and VALIDATION in folders:
        unused = folders.pop(VALIDATION)
        folders.setdefault(TEST, unused)
    if folders and summary is not None:
        note_others(root, list(folders.values()), summary)
    own = folders.get(TRAIN, root)
    names = classes(own, summary)
    class_names, notes = list(names), []
    parts = {TRAIN: list_images(own, list(names.values()), summary)}
    parts |= {part: list_part(at, class_names, summary) for part, at in folders.items() if part != TRAIN}
    if group_by is not None:
        _refuse_torn_groups(root, parts, group_by)
    shares = []
    if TEST not in parts:
        _refuse_lone(own, parts[TRAIN], list(names.values()))
        parts[TRAIN], parts[TEST] = _split(root, parts[TRAIN], TEST_SHARE, seed, group_by)
        shares.append("a fifth of the training images is kept for the test")
    limits = {TRAIN: limit_train, VALIDATION: limit_test, TEST: limit_test}
    parts = {part: limited(listed, limits[part], seed) for part, listed in parts.items()}
    if validation and VALIDATION not in parts:
        parts[TRAIN], parts[VALIDATION] = _split(root, parts[TRAIN], validation, seed, group_by)
        shares.append(f"a share of {validation:g} of the training images is held out for validation")
    parts = {part: parts[part] for part in PARTS if part in parts}
    if folders:
        notes.append("; ".join([_sources(root, folders), *shares]))
    else:
        notes += [f"{name}/ is taken for a class" for name in class_names if part_of(name)]
    if group_by is not None:
        counts = (f"{len(_groups(root, listed, group_by)):,} {_SHOWN[p]}" for p, listed in parts.items())
        notes.append(f"groups by {group_by}: {', '.join(counts)}")
    return Found(class_names, parts, notes)


def _sources(root: Path, folders: dict[str, Path]) -> str:
    """Which folder each part comes from, and which folders are passed over."""
    told = [f"{_SHOWN[part]} images: {at.name}/" for part, at in folders.items()]
    used = {at.name for at in folders.values()}
    others = [f"{name}/" for name in class_folders(root, least=0) if name not in used]
    return "; ".join([", ".join(told), *([f"passed over: {', '.join(others)}"] if others else [])])


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


def _refuse_lone(root: Path, listed: Listed, folders: list[str]) -> None:
    lone = np.flatnonzero(np.bincount(labels(listed)) < 2)
    if lone.size:
        folder = root / folders[lone[0]]
        raise DataError(f"{folder}: expected at least 2 images, one to train and one to test, got 1")


def _groups(root: Path, listed: Listed, group_by: str) -> set[str]:
    return set(group_names(root, listed, group_by).tolist())


def _refuse_torn_groups(root: Path, parts: dict[str, Listed], group_by: str) -> None:
    """Refuse a group whose images are in the folders of two parts."""
    for first, second in combinations(parts, 2):
        both = _groups(root, parts[first], group_by) & _groups(root, parts[second], group_by)
        if both:
            raise DataError(
                f"{root}: expected each group by {group_by} in one part, got {min(both)} among "
                f"{_SHOWN[first]} and {_SHOWN[second]} images"
            )


def limited(listed: Listed, limit: int | None, seed: int) -> Listed:
    """At most so many images, about the same number of each class, chosen by ``seed``; None takes all."""
    if limit is None:
        return listed
    return [listed[i] for i in balanced_subset(labels(listed), limit, seed)]
