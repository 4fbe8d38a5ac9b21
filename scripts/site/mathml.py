"""Converts TeX to MathML while the site is built, so that formulas need no script and no font.

pymdownx.arithmatex marks the formulas of a page.  Every current browser can show MathML.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_MARKED = re.compile(
    r'<(span|div) class="arithmatex">\s*(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])\s*</\1>', re.S
)

# what \qquad keeps apart stands one below the other where there is no room side by side
_WIDE_SPACE = re.compile(r"\s*\\qquad\s*")


def replace_formulas(page: str) -> str:
    """The page's HTML with every marked formula as MathML."""
    return _MARKED.sub(_formula, page)


def _formula(match: re.Match[str]) -> str:
    if match["inline"] is not None:
        return convert(html.unescape(match["inline"]).strip())
    parts = _WIDE_SPACE.split(html.unescape(match["block"]).strip())
    return f'<div class="formula">{"".join(convert(part, display="block") for part in parts)}</div>'
