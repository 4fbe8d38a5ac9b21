"""Which folders are the parts of a split, such as train/ and val/, and which are classes."""

from __future__ import annotations

import re
from pathlib import Path

from minicnn.data.errors import DataError
from minicnn.data.scan import Listed, class_folders, list_images
from minicnn.data.summary import Summary
from minicnn.text import normalized

_USUAL = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validate", "validation", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout"),
}
"""Part -> what people call its folder, in any case, and with ``set`` or ``images``, say, after it."""

_PATTERN = {
    part: re.compile(rf"({'|'.join(names)})([ _-]?(set|data|split|images))?")
    for part, names in _USUAL.items()
}


def part_of(name: str) -> str | None:
    """The part of a split that a folder of this name usually holds, if any."""
    plain = normalized(name).casefold()
    return next((part for part, pattern in _PATTERN.items() if pattern.fullmatch(plain)), None)


def part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part that ``root`` has; empty if the folders of ``root`` are classes.

    The parts are train, validation and test.  They need a training folder, and at least one other part or
    no other folder beside it: one folder called ``train`` among classes is the class of trains.

    Raises: DataError if two folders are the same part, or if a class would be called like a part
    """
    folders = class_folders(root, least=0)
    found: dict[str, Path] = {}
    for name in folders:
        part = part_of(name)
        if part in found:
            raise DataError(
                f"{root}: expected one folder of {part} images, got {found[part].name}/ and {name}/"
            )
        if part:
            found[part] = root / name
    found = {part: found[part] for part in _USUAL if part in found}
    if "train" in found and (len(found) > 1 or len(folders) == 1):
        return found
    if not found or (found.keys() == {"train"} and not class_folders(found["train"], least=0)):
        return {}
    names = ", ".join(f"{folder.name}/" for folder in found.values())
    if "train" in found:
        raise DataError(
            f"{root}: {names} holds folders of its own beside classes: expected train/ and val/ or test/ "
            "with a folder for each class, or folders of classes alone"
        )
    raise DataError(
        f"{root}: {names} looks like a part of a split: expected a folder train/ beside it, or another "
        "name for that class"
    )


def classes(root: Path, summary: Summary | None = None, *, least: int = 2) -> dict[str, str]:
    """Class name, in the order of names -> the name that its folder has on the disk.

    Raises: DataError if there are fewer than ``least``, or two names look the same
    """
    found: dict[str, str] = {}
    for folder in class_folders(root, summary, least=least):
        name = normalized(folder)
        if name in found:
            raise DataError(f"{root}: two class folders have names that look the same: {name}")
        found[name] = folder
    return dict(sorted(found.items()))


def list_part(root: Path, class_names: list[str], summary: Summary | None = None) -> Listed:
    """The images of a part that is judged by: any of the classes may be missing, but none be new.

    Raises: DataError naming a class folder that is none of ``class_names``, or if there is no image
    """
    here = classes(root, summary, least=1)
    if unknown := sorted(here.keys() - set(map(normalized, class_names))):
        raise DataError(
            f"{root}: expected classes that were learnt, {few(class_names)}, got {few(unknown)}"
        )
    listed = list_known(root, class_names, summary)
    if not listed:
        raise DataError(f"{root}: expected images, got none")
    return listed


def list_known(root: Path, class_names: list[str], summary: Summary | None = None) -> Listed:
    """The images of those of the classes that ``root`` has, numbered as in ``class_names``."""
    here = classes(root, least=0)
    numbers = [i for i, name in enumerate(class_names) if normalized(name) in here]
    names = [here[normalized(class_names[i])] for i in numbers]
    return [(path, numbers[label]) for path, label in list_images(root, names, summary, may_be_empty=True)]


def lacking(part: str, labels: list[int], class_names: list[str]) -> list[str]:
    """A line that names the classes without an image in the part; none if all have one."""
    present = set(labels)
    missing = [name for i, name in enumerate(class_names) if i not in present]
    return [f"no {part} images of {few(missing)}"] if missing else []


def few(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
