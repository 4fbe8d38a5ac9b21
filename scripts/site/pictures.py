"""The pictures that the pages name.  minicnn's own operations compute the numbers in them."""

from __future__ import annotations

from collections.abc import Callable

import pictures_conv
import pictures_learn
import pictures_maps
import pictures_rows

PICTURES: dict[str, Callable[..., str]] = {
    **pictures_conv.PICTURES,
    **pictures_maps.PICTURES,
    **pictures_rows.PICTURES,
    **pictures_learn.PICTURES,
}


def draw(name: str, *arguments: str) -> str:
    """The picture of this name as an HTML figure.  Raises LookupError if there is none."""
    if name not in PICTURES:
        raise LookupError(f"no picture {name!r}; there are {', '.join(sorted(PICTURES))}")
    return PICTURES[name](*arguments)
