"""Which characters a plot can draw: those of matplotlib's own font, and of the other installed ones."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from minicnn.text import escape, printable


def drawable(text: str) -> str:
    """`printable` text, in which characters that no installed font has are escapes such as ``\\u56fe``."""
    text = printable(text)
    lacking = _beyond_the_default(text)
    there = _families_of(lacking)
    return "".join(escape(one) if one in lacking and one not in there else one for one in text)


def families(text: str) -> list[str]:
    """The font families that a `drawable` text needs besides the default one."""
    return sorted(set(_families_of(_beyond_the_default(text)).values()))


def _beyond_the_default(text: Iterable[str]) -> frozenset[str]:
    """The characters that the default font lacks; line feeds are not drawn."""
    return frozenset(one for one in text if ord(one) not in _default_characters() and one != "\n")


@cache
def _default_characters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


@cache
def _families_of(characters: frozenset[str]) -> dict[str, str]:
    """For each character that an installed font has, the family of the first that does."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    found: dict[str, str] = {}
    for entry in fontManager.ttflist:
        left = [character for character in characters if character not in found]
        if not left:
            break
        # The font of last resort has one box for each script.
        if entry.style != "normal" or entry.name.replace(" ", "").startswith("LastResort"):
            continue
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # it was removed after matplotlib listed it, or is damaged
            continue
        if font.scalable:
            found |= {one: entry.name for one in left if font.get_char_index(ord(one))}
    return found
