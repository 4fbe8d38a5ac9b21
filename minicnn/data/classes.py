"""Classes of images whose labels are written down, and parts of images that are in several files."""

from __future__ import annotations

import glob
import itertools
import re
from collections import Counter
from pathlib import Path

from minicnn.data.contents import Contents
from minicnn.data.divide import SHOWN, TRAIN, Scanned
from minicnn.data.errors import DataError
from minicnn.data.parts import few, part_of
from minicnn.text import normalized

Labelled = list[tuple[Path, str]]
"""Paths of images, each with the name of its class."""

MOST_FILES = 100_000
"""As many files one pattern may name."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_WORDS = re.compile(r"[^-_.]+")


def scanned(
    root: Path, at: Path, parts: dict[str, Labelled], contents: Contents, names: list[str] | None = None,
    sources: str = "", notes: list[str] | None = None,
) -> Scanned:  # fmt: skip
    """What a source has, with its classes numbered: those of ``names``, else those of the training images,
    or of all images if none is for training.

    Numbers are in the order of their values, other names in their own order.

    Raises: DataError if there is no image, if two classes have one name, or if another part has a class
            that the training lacks
    """
    parts = {
        part: [(path, normalized(label)) for path, label in some] for part, some in parts.items() if some
    }
    if not parts:
        raise DataError(f"{at}: expected images with labels, got none")
    if names is None:
        numbered = [parts[TRAIN]] if TRAIN in parts else parts.values()
        names = _ordered({label for some in numbered for _, label in some})
    else:
        names = [normalized(name) for name in names]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{at}: expected names of classes that differ, got {few(twice)} twice")
    numbers = {name: number for number, name in enumerate(names)}
    for part, some in parts.items():
        if unknown := sorted({label for _, label in some} - numbers.keys()):
            raise DataError(
                f"{at}: expected the classes {few(names)} of {SHOWN[part]} images, got {few(unknown)}"
            )
    listed = {part: [(path, numbers[label]) for path, label in some] for part, some in parts.items()}
    return Scanned(root, at, names, listed, contents, sources, notes or [])


def files_of(pattern: str) -> list[Path]:
    """The files that a pattern names, sorted: `*`, `?` and `**` as in a shell, {00..12} and {a,b} too.

    A file that has just this name is that one.

    Raises: DataError if there are none, or too many
    """
    if Path(pattern).is_file():
        return [Path(pattern)]
    found: set[Path] = set()
    for one in itertools.islice(_expanded(pattern), MOST_FILES + 1):
        if glob.has_magic(one):
            found |= {Path(path) for path in glob.iglob(one, recursive=True) if Path(path).is_file()}  # noqa: PTH207
        elif Path(one).is_file():
            found.add(Path(one))
        else:
            raise DataError(f"{one}: expected a file, got none ({pattern})")
        if len(found) > MOST_FILES:
            raise DataError(f"{pattern}: expected at most {MOST_FILES:,} files, got more")
    if not found:
        raise DataError(f"{pattern}: expected a file, got none of that name")
    return sorted(found)


def parts_of_files(files: list[Path]) -> tuple[dict[str, list[Path]], str]:
    """The files of each part by their names, such as train-00.tar and test-00.tar, and a sentence on that.

    Where not every file's name says its part, or none is for training, all are for training, and the
    sentence is empty.
    """
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(_part_of_file(file) or "", []).append(file)
    if "" in parts or TRAIN not in parts:
        return {TRAIN: files}, ""
    told = [f"{SHOWN[part]} images: {few([file.name for file in some])}" for part, some in parts.items()]
    return parts, ", ".join(told)


def common_root(files: list[Path]) -> Path:
    """The folder that all files are below; where one path is absolute and another is not, no folder is."""
    root = files[0].parent
    while root != root.parent and not all(file.is_relative_to(root) for file in files):
        root = root.parent
    return root


def _part_of_file(file: Path) -> str | None:
    """The part that a word of the name says, or else the folder's name."""
    words = [*_WORDS.findall(file.stem), file.parent.name]
    return next((part for part in map(part_of, words) if part), None)


def _expanded(pattern: str) -> itertools.chain[str]:
    """The pattern with each of its braces' choices in their place."""
    found = _BRACES.search(pattern)
    if not found:
        return itertools.chain([pattern])
    before, after = pattern[: found.start()], pattern[found.end() :]
    return itertools.chain.from_iterable(
        _expanded(f"{before}{choice}{after}") for choice in _choices(found[1])
    )


def _choices(inside: str) -> list[str] | map[str]:
    ends = _RANGE.fullmatch(inside)
    if not ends:
        return inside.split(",")
    width = len(ends[1]) if ends[1].startswith("0") else 0
    return map(f"{{:0{width}}}".format, range(int(ends[1]), int(ends[2]) + 1))


def _ordered(labels: set[str]) -> list[str]:
    if all(re.fullmatch(r"-?\d{1,18}", label) for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)
