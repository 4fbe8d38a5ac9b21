"""What was found in a folder of images: how they are, what was passed over, and what cannot be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.images import SIXTEEN_BITS, Described

ONE_SHADE = 16
"""An image whose values, of 0 to 255, are all less than this apart shows nothing."""

MOST_NAMED = 20
"""As many bad files are named in a message; the rest are counted."""


@dataclass
class Summary:
    """What reading a folder of images came upon; scanning and decoding fill it.

    passed_over:  what is no image -> the files and folders
    bad:          a file or folder that was to be used and cannot be -> why
    sizes, modes: (H,W) and Pillow's mode of the image files -> how many
    one_shade:    the images whose pixels are nearly the same everywhere
    highest:      the highest value of images of 16 bits of grey, as 8 bits; None if there are none
    """

    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    bad: dict[Path, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    one_shade: list[Path] = field(default_factory=list)
    highest: int | None = None

    def pass_over(self, why: str, path: Path) -> None:
        """Note a file or folder that is no image."""
        self.passed_over.setdefault(why, []).append(path)

    def note_bad(self, path: Path, error: DataError) -> None:
        """Note a file or folder that was to be used, with the error that names it."""
        self.bad[path] = str(error).removeprefix(f"{path}: ")

    def take_up(self, path: Path, image: Described) -> None:
        """Note what an image is like."""
        self.sizes[image.size] += 1
        self.modes[image.mode] += 1
        if is_one_shade(image.pixels[None])[0]:
            self.one_shade.append(path)
        if image.mode == SIXTEEN_BITS:
            self.highest = max(self.highest or 0, int(image.pixels.max()))


def is_one_shade(x: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the images (N,C,H,W) show nothing: in each channel, all values are within ONE_SHADE."""
    spread = x.max((2, 3)) - x.min((2, 3))
    return np.asarray(spread.max(1) < ONE_SHADE)


class UnusableImages(DataError):
    """Files that cannot be used; ``summary`` has all of them, and what else was found."""

    def __init__(self, reasons: list[str], summary: Summary) -> None:
        super().__init__("; ".join(reasons))
        self.summary = summary


def bad_files(summary: Summary, remedy: str = "; --skip-bad leaves {} out") -> str:
    """One sentence on all bad files: the first MOST_NAMED by what is wrong, the number of the rest."""
    reasons: dict[str, list[str]] = {}
    for path, why in sorted(summary.bad.items())[:MOST_NAMED]:
        reasons.setdefault(why, []).append(str(path))
    named = "; ".join(f"{', '.join(paths)}: {why}" for why, paths in reasons.items())
    if len(summary.bad) == 1:
        return named + remedy.format("it")
    more = len(summary.bad) - MOST_NAMED
    rest = f"; and {more:,} more" if more > 0 else ""
    return f"{len(summary.bad):,} files cannot be used; {named}{rest}{remedy.format('them')}"


def common_sizes(summary: Summary, most: int = 3) -> str:
    """The most common sizes as WxH, each with its number of images."""
    shown = [f"{width}x{height}: {count}" for (height, width), count in summary.sizes.most_common(most)]
    more = len(summary.sizes) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")
