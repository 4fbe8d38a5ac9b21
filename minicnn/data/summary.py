"""What was found in a folder of images: how they are, what was passed over, and what cannot be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from minicnn.data.errors import DataError
from minicnn.data.images import SIXTEEN_BITS, Described

MOST_NAMED = 20
"""As many bad files are named in a message; the rest are counted."""


class Look(NamedTuple):
    """What a decoded image is like.

    size, mode: upright (H,W) of the file, and Pillow's mode
    pixels:     (C,H,W) of what it became
    highest:    the highest value, as 8 bits, of an image of 16 bits of grey; None of others
    """

    size: tuple[int, int]
    mode: str
    pixels: tuple[int, int, int]
    highest: int | None


def look_at(image: Described) -> Look:
    """What an image is like."""
    channels, height, width = image.pixels.shape
    highest = int(image.pixels.max()) if image.mode == SIXTEEN_BITS else None
    return Look(image.size, image.mode, (channels, height, width), highest)


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

    def note_bad(self, path: Path, error: str) -> None:
        """Note a file or folder that was to be used, with the text of the error that names it."""
        self.bad[path] = error.removeprefix(f"{path}: ")

    def take_up(self, look: Look) -> None:
        """Note what an image is like."""
        self.sizes[look.size] += 1
        self.modes[look.mode] += 1
        self.note_highest(look.highest)

    def note_highest(self, highest: int | None) -> None:
        """Note the highest value of an image of 16 bits, if it is one."""
        if highest is not None:
            self.highest = max(self.highest or 0, highest)


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


def different_sizes(path: Path, expected: tuple[int, ...], got: tuple[int, ...]) -> str:
    """What to say of the first image that has another (H,W) than those before it."""
    return (
        f"{path}: expected {expected[1]}x{expected[0]} pixels as images before it have, "
        f"got {got[1]}x{got[0]}; --image-size N scales all to one size"
    )


def refuse(found: Summary, different: str, *, skip_bad: bool) -> None:
    """Raise UnusableImages if there are bad files, or what to say of images of ``different`` sizes."""
    reasons = [bad_files(found)] if found.bad and not skip_bad else []
    if different:
        reasons.append(f"{different} (there are {common_sizes(found)})")
    if reasons:
        raise UnusableImages(reasons, found)
