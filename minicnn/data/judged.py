"""The images that a trained model is tested on: those of a dataset that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minicnn.data.decode import decode, without_bad
from minicnn.data.duplicates import digests
from minicnn.data.errors import DataError
from minicnn.data.folder import TEST, find, limited
from minicnn.data.images import Images, convert_channels
from minicnn.data.parts import lacking, list_known, list_part, part_folders
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.record import SplitRecord
from minicnn.data.scan import Listed, labels
from minicnn.data.summary import Summary
from minicnn.text import normalized


@dataclass(frozen=True, eq=False)
class Judged:
    """Images to test on, numbered by the model's classes, what they are, and lines to tell the user.

    ``summary`` is what was found in a folder of images; None for datasets by name.
    """

    images: Images
    what: str
    notes: list[str]
    summary: Summary | None = None


@dataclass(frozen=True)
class Learnt:
    """What a model's checkpoint says of it and of its training images; ``record`` is None in an old one."""

    class_names: list[str]
    image_shape: tuple[int, int, int]
    record: SplitRecord | None


def judge_folder(
    root: Path, learnt: Learnt, *, limit: int | None, seed: int, skip_bad: bool,
    progress: OnProgress = ignore,
) -> Judged:  # fmt: skip
    """The images of a folder that was kept apart: its test part if it has parts, else the whole of it.

    Images that the model learnt from are left out.  No class need be there, but none may be new.

    Raises: DataError naming the file or folder
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with one folder of images a class, got no such folder")
    folders = part_folders(root)
    if folders and TEST not in folders:
        names = ", ".join(f"{folder.name}/" for folder in folders.values())
        raise DataError(f"{root}: expected a test folder, got {names}: name the folder to test on")
    at = folders.get(TEST, root)
    summary = Summary()
    listed = limited(list_part(at, learnt.class_names, summary), limit, seed)
    return _judged(listed, learnt, f"the whole of {at}", summary, skip_bad, progress)


def judge_own_folder(
    root: Path, learnt: Learnt, *, limit: int | None, seed: int, skip_bad: bool,
    progress: OnProgress = ignore,
) -> Judged:  # fmt: skip
    """The test part of the folder that the model was trained on, as its record has it.

    The files that the record names are read, and no others.  Without a record, the folder is split anew as
    training did it.

    Raises: DataError naming the file or folder
    """
    summary = Summary()
    if learnt.record is None:
        found = find(
            root, validation=0, group_by=None, limit_train=None, limit_test=limit, seed=seed,
            summary=summary,
        )  # fmt: skip
        if found.class_names != [normalized(name) for name in learnt.class_names]:
            raise DataError(
                f"{root}: expected the classes {', '.join(learnt.class_names)}, "
                f"got {', '.join(found.class_names)}"
            )
        what = f"a fifth of {root}, split anew as training did it"
        judged = _judged(found.parts[TEST], learnt, what, summary, skip_bad, progress)
        note = (
            "the checkpoint does not say what it learnt from: if the folder has changed since, it may have "
            "learnt from some of these"
        )
        return replace(judged, notes=[note, *judged.notes])
    if not root.is_dir():
        raise DataError(f"{root}: expected the folder of the training, got no such folder")
    names = set(learnt.record.test_files)
    tops = part_folders(root).values() or [root]
    every = [image for top in tops for image in list_known(top, learnt.class_names, summary)]
    listed = [image for image in every if image[0].relative_to(root).as_posix() in names]
    if not listed:
        raise DataError(f"{root}: expected the {len(names)} test images of the training, got none of them")
    gone = len(names) - len(listed)
    notes = [f"{gone:,} of its {len(names):,} images are no longer there"] if gone else []
    what = f"the test part of training, in {root}"
    judged = _judged(limited(listed, limit, seed), learnt, what, summary, skip_bad, progress)
    changed = int((~np.isin(digests(judged.images.x), learnt.record.test)).sum())
    notes += [f"{changed:,} of them have changed since"] if changed else []
    return replace(judged, notes=[*notes, *judged.notes])


def judge_named(name: str, test: Images, names: list[str], learnt: Learnt) -> Judged:
    """The test images of a dataset, with the model's classes and channels.

    Raises: DataError naming a class that the model does not know
    """
    numbers = {normalized(one): i for i, one in enumerate(learnt.class_names)}
    if unknown := [one for one in names if normalized(one) not in numbers]:
        raise DataError(
            f"{name}: expected classes that were learnt, {', '.join(learnt.class_names)}, "
            f"got {', '.join(unknown)}"
        )
    y = np.array([numbers[normalized(one)] for one in names], np.int64)[test.y]
    images = Images(convert_channels(test.x, learnt.image_shape[0]), y)
    return Judged(images, f"the test images of {name}", lacking("test", y.tolist(), learnt.class_names))


def _judged(
    listed: Listed, learnt: Learnt, what: str, summary: Summary, skip_bad: bool, progress: OnProgress
) -> Judged:
    channels, height, width = learnt.image_shape
    x = decode(listed, (height, width), channels, summary=summary, skip_bad=skip_bad, progress=progress)
    y = labels(without_bad(listed, summary, may_be_empty=True))
    notes = []
    if learnt.record is not None:
        own = digests(x)
        seen = np.isin(own, learnt.record.train)
        if seen.all():
            raise DataError(f"{what}: expected images to test on, got {len(x)} that the model learnt from")
        if seen.any():
            notes.append(f"left out: {seen.sum():,} of {len(x):,} images, from which the model learnt")
        chose = int(np.isin(own[~seen], learnt.record.validation).sum())
        if chose:
            notes.append(f"{chose:,} of them are validation images, which chose the best epoch")
        x, y = x[~seen], y[~seen]
    notes += lacking("test", y.tolist(), learnt.class_names)
    return Judged(Images(x, y), what, notes, summary)
