"""What is printed of the images before they are used: what a folder holds, and what may be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minicnn import data
from minicnn.app import progress
from minicnn.app.needs import check_needs
from minicnn.app.run_folder import SKIPPED
from minicnn.app.settings import Config, in_memory
from minicnn.data.facts import ONE_SHADE
from minicnn.data.judged import Judged
from minicnn.data.summary import Summary, common_sizes
from minicnn.files import write_atomically
from minicnn.text import printable

if TYPE_CHECKING:
    from rich.console import Console

MOST_CLASSES, MOST_NAMES = 20, 3
"""As many classes, and as many files of a kind, are shown; the rest are counted."""

FEW_SHADES = 64
"""If 16-bit images are left with no more shades than this, a warning tells how to keep more."""

MODES = {
    "1": "black and white", "L": "grey", "LA": "transparent grey", "I;16": "16-bit grey", "P": "palette",
    "PA": "palette", "RGB": "colour", "RGBA": "transparent colour", "CMYK": "CMYK", "YCbCr": "colour",
}  # fmt: skip
"""What people call Pillow's modes."""


def load(console: Console, config: Config, *, download: bool = True) -> data.Dataset:
    """The dataset of a run's settings.

    What was found in a folder of images is printed, also when its images cannot be used.

    Raises: what `data.load` raises
    """
    with of_unusable(console), progress.shown(console, "reading images") as on_progress:
        dataset = data.load(
            config.dataset, data_dir=config.data_dir, image_size=config.image_size, resize=config.resize,
            seed=config.seed, validation=config.validation, group_by=config.group_by,
            limit_train=config.limit_train, limit_test=config.limit_test, skip_bad=config.skip_bad,
            cache=config.cache, in_memory=in_memory(config), download=download,
            progress=on_progress, planned=partial(check_needs, config),
        )  # fmt: skip
    if dataset.summary:
        _print(console, [*_classes(dataset), *_found(dataset.summary), *_left_out(dataset.summary)])
    _print(console, [*dataset.notes, *_warnings(dataset)])
    return dataset


@contextmanager
def of_unusable(console: Console) -> Iterator[None]:
    """Print what was found in a folder whose images cannot be used; the error goes on."""
    try:
        yield
    except data.UnusableImages as error:
        _print(console, _found(error.summary))
        raise


def show_judged(console: Console, judged: Judged) -> None:
    """Print how many images a model is tested on, what they are, and what was left out."""
    left_out = _left_out(judged.summary) if judged.summary else []
    _print(console, [f"{len(judged.images):,} images: {judged.what}", *judged.notes, *left_out])


def write_skipped(folder: Path, summary: Summary | None) -> None:
    """Write skipped.txt, a line for each file of a folder of images that was left out, if any was."""
    if summary and summary.bad:
        lines = [f"{printable(str(path))}: {printable(why)}\n" for path, why in summary.bad.items()]
        write_atomically(folder / SKIPPED, "".join(lines).encode())


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(printable(line))


def _classes(dataset: data.Dataset) -> list[str]:
    """A line for each class, with its number of images in each part."""
    names, number = dataset.class_names, len(dataset.class_names)
    parts = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = {
        part: np.bincount(images.y, minlength=number)
        for part, images in parts.items()
        if images is not None
    }
    lines = [
        f"  {name}: {', '.join(f'{count[label]:,} {part}' for part, count in counts.items())}"
        for label, name in enumerate(names[:MOST_CLASSES])
    ]
    if number > MOST_CLASSES:
        lines.append(f"  and {number - MOST_CLASSES:,} more classes")
    return ["images of each class:", *lines]


def _found(summary: Summary) -> list[str]:
    """Sizes and modes, and what was passed over."""
    lines = []
    if summary.sizes:
        modes = ", ".join(f"{MODES.get(mode, mode)}: {n:,}" for mode, n in summary.modes.most_common())
        lines.append(f"sizes: {common_sizes(summary)}; {modes}")
    for reason, paths in summary.passed_over.items():
        lines.append(f"passed over, {reason}: {len(paths):,} ({_some(paths)})")
    return lines


def _left_out(summary: Summary) -> list[str]:
    if not summary.bad:
        return []
    return [f"left out, since they cannot be used: {len(summary.bad):,} ({_some(list(summary.bad))})"]


def _warnings(dataset: data.Dataset) -> list[str]:
    """What will probably keep a network from learning."""
    lines = []
    if count := dataset.one_shade:
        named = dataset.summary.one_shade if dataset.summary else []
        example = f", such as {named[0]}" if named else ""
        lines.append(
            f"warning: {count:,} of {len(dataset.train):,} training images are of one shade{example}: the "
            f"values of each are within {ONE_SHADE} of 255. Transparent images are laid over white, "
            "where a white drawing vanishes"
        )
    highest = dataset.summary.highest if dataset.summary else None
    if highest is not None and highest < FEW_SHADES:
        lines.append(
            f"warning: no value of the 16-bit images is above {256 * highest + 255} of 65535, so "
            f"{highest + 1} of 256 shades are left of them: multiply their values, all by the same number"
        )
    return lines


def _some(paths: list[Path]) -> str:
    """The first names of a list."""
    names = ", ".join(str(path) for path in paths[:MOST_NAMES])
    return names + (", …" if len(paths) > MOST_NAMES else "")
