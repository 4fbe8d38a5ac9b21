"""HTML pages in one file: they fetch nothing, and what a stranger named is text in them.

The templates beside this module are Jinja's, with autoescaping: names of classes and files come from
strangers, and a template that escapes by itself cannot forget one.  Each text also passes `printable`, so
that no invisible character turns what is read.  Style, script and pictures stand in the page itself, and
its content security policy forbids all else.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn.files import write_atomically
from minicnn.text import certainty, percent, printable

LONGEST_SIDE = 224
"""Pixels of a picture's longer side in a page; larger ones are scaled down."""


def write(path: Path, template: str, **values: Any) -> None:
    """Render a template of this folder into a file.  Raises OSError."""
    write_atomically(path, render(template, **values).encode())


def render(template: str, **values: Any) -> str:
    """The page that a template makes of the values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_readable,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "certainty": certainty}
    return environment.get_template(template).render(values)


def picture(pixels: NDArray[np.uint8]) -> str:
    """Pixels (H,W,3) as the address of a PNG that it holds itself."""
    from PIL import Image

    image, data = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _readable(value: Any) -> Any:
    """What Jinja writes for an expression: a macro's result is HTML already, other text is for reading."""
    return printable(value) if type(value) is str else value
