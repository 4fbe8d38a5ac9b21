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


def replace_formulas(page: str) -> str:
    """The page's HTML with every marked formula as MathML."""
    return _MARKED.sub(_formula, page)


def _formula(match: re.Match[str]) -> str:
    if match["inline"] is not None:
        return convert(html.unescape(match["inline"]).strip())
    mathml = convert(html.unescape(match["block"]).strip(), display="block")
    return f'<div class="formula">{mathml}</div>'
