"""The images that a trained model is tested on: those of a dataset that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minicnn.data import sources
from minicnn.data.contents import Contents, Files
from minicnn.data.decode import Work, decode, without_bad
from minicnn.data.divide import SHOWN, TEST, Scanned, divide, limited
from minicnn.data.errors import DataError
from minicnn.data.facts import Digests
from minicnn.data.images import Images, convert_channels
from minicnn.data.parts import few, lacking, list_known, list_part, part_folders
from minicnn.data.record import SplitRecord
from minicnn.data.scan import Listed, name_below
from minicnn.data.sources import FOLDER, kind_of, place_of
from minicnn.data.summary import Summary
from minicnn.text import normalized


@dataclass(frozen=True, eq=False)
class Judged:
    """Images to test on, numbered by the model's classes, what they are, and lines to tell the user.

    ``summary`` is what was found in a source; None for datasets by name.  So are the images' ``digests``.
    """

    images: Images
    what: str
    notes: list[str]
    summary: Summary | None = None
    digests: Digests | None = None


@dataclass(frozen=True)
class Learnt:
    """What a model's checkpoint says of it and of its training images; ``record`` is None in an old one."""

    class_names: list[str]
    image_shape: tuple[int, int, int]
    record: SplitRecord | None

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each class by its name as it is compared."""
        return {normalized(name): number for number, name in enumerate(self.class_names)}


def judge_source(name: str, learnt: Learnt, work: Work, *, limit: int | None, seed: int) -> Judged:
    """The images of a source that was kept apart: its test part if it has parts, else the whole of it.

    Images that the model learnt from are left out.  No class need be there, but none may be new.

    Raises: DataError naming the file or folder
    """
    summary = Summary()
    if kind_of(name) == FOLDER:
        listed, at = _of_folder(place_of(name), learnt, summary)
        contents: Contents = Files()
    else:
        scanned = sources.scan(name, summary)
        listed, at, contents = _of_scanned(scanned, learnt), scanned.at, scanned.contents
    listed = limited(listed, limit, seed)
    return _judged(listed, contents, learnt, f"the whole of {at}", summary, work)


def judge_own_source(name: str, learnt: Learnt, work: Work, *, limit: int | None, seed: int) -> Judged:
    """The test part of the source that the model was trained on, as its record has it.

    The files that the record names are read, and no others.  Without a record, the source is split anew as
    training did it.

    Raises: DataError naming the file or folder
    """
    summary, at = Summary(), place_of(name)
    if learnt.record is None:
        found = divide(
            sources.scan(name, summary, validation=0), validation=0, group_by=None, limit_train=None,
            limit_test=limit, seed=seed,
        )  # fmt: skip
        if found.class_names != [normalized(one) for one in learnt.class_names]:
            raise DataError(
                f"{at}: expected the classes {', '.join(learnt.class_names)}, "
                f"got {', '.join(found.class_names)}"
            )
        what = f"a fifth of {at}, split anew as training did it"
        judged = _judged(found.parts[TEST], found.contents, learnt, what, summary, work)
        note = (
            "the checkpoint does not say what it learnt from: if the folder has changed since, it may have "
            "learnt from some of these"
        )
        return replace(judged, notes=[note, *judged.notes])
    every, root, contents = _every(name, learnt, summary)
    names = set(learnt.record.test_files)
    listed = [image for image in every if name_below(root, image[0]) in names]
    if not listed:
        raise DataError(f"{at}: expected the {len(names)} test images of the training, got none of them")
    gone = len(names) - len(listed)
    notes = [f"{gone:,} of its {len(names):,} images are no longer there"] if gone > 0 else []
    what = f"the test part of training, in {at}"
    judged = _judged(limited(listed, limit, seed), contents, learnt, what, summary, work)
    assert judged.digests is not None
    changed = int((~np.isin(judged.digests, learnt.record.test)).sum())
    notes += [f"{changed:,} of them have changed since"] if changed else []
    return replace(judged, notes=[*notes, *judged.notes])


def _of_folder(root: Path, learnt: Learnt, summary: Summary) -> tuple[Listed, Path]:
    """The images of a folder to test on, and where they are."""
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one folder of images a class, got no such folder")
    folders = part_folders(root)
    if folders and TEST not in folders:
        names = ", ".join(f"{folder.name}/" for folder in folders.values())
        raise DataError(f"{root}: expected a test folder, got {names}: name the folder to test on")
    at = folders.get(TEST, root)
    return list_part(at, learnt.class_names, summary), at


def _of_scanned(scanned: Scanned, learnt: Learnt) -> Listed:
    """The images of another source to test on, numbered by the model's classes."""
    if len(scanned.parts) > 1 and TEST not in scanned.parts:
        names = ", ".join(SHOWN[part] for part in scanned.parts)
        raise DataError(f"{scanned.at}: expected test images, or images that are in no part, got {names}")
    listed = scanned.parts.get(TEST) or next(iter(scanned.parts.values()))
    numbers = learnt.numbers
    used = {scanned.class_names[label] for _, label in listed}
    if unknown := sorted(used - numbers.keys()):
        raise DataError(
            f"{scanned.at}: expected classes that were learnt, {few(learnt.class_names)}, "
            f"got {few(unknown)}"
        )
    return [(path, numbers[scanned.class_names[label]]) for path, label in listed]


def _every(name: str, learnt: Learnt, summary: Summary) -> tuple[Listed, Path, Contents]:
    """All images of the learnt classes in the source of the training, and what they are told below."""
    if kind_of(name) != FOLDER:
        scanned = sources.scan(name, summary)
        numbers = learnt.numbers
        every = [
            (path, numbers[scanned.class_names[label]])
            for part in scanned.parts.values()
            for path, label in part
            if scanned.class_names[label] in numbers
        ]
        return every, scanned.root, scanned.contents
    root = place_of(name)
    if not root.is_dir():
        raise DataError(f"{root}: expected the folder of the training, got no such folder")
    tops = part_folders(root).values() or [root]
    return [image for top in tops for image in list_known(top, learnt.class_names, summary)], root, Files()


def judge_named(name: str, test: Images, names: list[str], learnt: Learnt) -> Judged:
    """The test images of a dataset, with the model's classes and channels.

    Raises: DataError naming a class that the model does not know
    """
    numbers = learnt.numbers
    if unknown := [one for one in names if normalized(one) not in numbers]:
        raise DataError(
            f"{name}: expected classes that were learnt, {', '.join(learnt.class_names)}, "
            f"got {', '.join(unknown)}"
        )
    y = np.array([numbers[normalized(one)] for one in names], np.int64)[test.y]
    images = Images(convert_channels(test.x, learnt.image_shape[0]), y)
    return Judged(images, f"the test images of {name}", lacking("test", y.tolist(), learnt.class_names))


def _judged(
    listed: Listed, contents: Contents, learnt: Learnt, what: str, summary: Summary, work: Work
) -> Judged:
    channels, height, width = learnt.image_shape
    work = replace(work, size=(height, width), channels=channels)
    decoded = decode(listed, work, contents=contents, summary=summary)
    images, facts = decoded.part(0, without_bad(listed, summary))
    own, notes = facts.digests, []
    if learnt.record is not None:
        seen = np.isin(own, learnt.record.train)
        if seen.all():
            raise DataError(
                f"{what}: expected images to test on, got {len(own)} that the model learnt from"
            )
        if seen.any():
            notes.append(f"left out: {seen.sum():,} of {len(own):,} images, from which the model learnt")
            images, own = images.subset(np.flatnonzero(~seen)), own[~seen]
        chose = int(np.isin(own, learnt.record.validation).sum())
        if chose:
            notes.append(f"{chose:,} of them are validation images, which chose the best epoch")
    notes += lacking("test", images.y.tolist(), learnt.class_names)
    return Judged(images, what, notes, summary, own)
