"""Finding the images of folder:DIR, a folder with one folder of images for each class."""

from __future__ import annotations

from pathlib import Path

from minicnn.data.divide import SHOWN, TEST, TRAIN, VALIDATION, Scanned
from minicnn.data.errors import DataError
from minicnn.data.parts import classes, list_part, part_folders, part_of
from minicnn.data.scan import class_folders, list_images, note_others
from minicnn.data.summary import Summary


def scan_folder(root: Path, validation: float | None = None, summary: Summary | None = None) -> Scanned:
    """The images of a folder, by the parts that it has.

    ``root`` has one folder for each class, or parts such as ``train/``, ``val/`` and ``test/`` with one
    folder for each class; `parts` knows the usual names.  Classes are numbered in the order of their names.
    Images are the files at any depth below the class's folder whose name or content says so; what is passed
    over, and why, is noted in ``summary``.  With ``validation`` 0, ``val/`` is for the test or for nothing.

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
    class_names = list(names)
    parts = {TRAIN: list_images(own, list(names.values()), summary)}
    parts |= {part: list_part(at, class_names, summary) for part, at in folders.items() if part != TRAIN}
    return Scanned(
        root, own, class_names, parts,
        sources=_sources(root, folders) if folders else "",
        notes=[] if folders else [f"{name}/ is taken for a class" for name in class_names if part_of(name)],
    )  # fmt: skip


def _sources(root: Path, folders: dict[str, Path]) -> str:
    """Which folder each part comes from, and which folders are passed over."""
    told = [f"{SHOWN[part]} images: {at.name}/" for part, at in folders.items()]
    used = {at.name for at in folders.values()}
    others = [f"{name}/" for name in class_folders(root, least=0) if name not in used]
    return "; ".join([", ".join(told), *([f"passed over: {', '.join(others)}"] if others else [])])
