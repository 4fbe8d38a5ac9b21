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


LONG = 60
"""Formulas of fewer characters fit on a phone."""


def replace_formulas(page: str) -> str:
    """The page's HTML with every marked formula as MathML."""
    return _MARKED.sub(_formula, page)


def _formula(match: re.Match[str]) -> str:
    if match["inline"] is not None:
        return convert(html.unescape(match["inline"]).strip())
    formulas = _WIDE_SPACE.split(html.unescape(match["block"]).strip())
    spans = ("".join(convert(part, display="block") for part in _sides(formula)) for formula in formulas)
    return f'<div class="formula">{"".join(f"<span>{span}</span>" for span in spans)}</div>'


def _sides(formula: str) -> list[str]:
    """A formula cut before each = and ← outside brackets, so that it can go on in the next line."""
    if len(formula) < LONG or "\\begin" in formula or "\\left" in formula.replace("\\leftarrow", ""):
        return [formula]
    pieces, depth = [""], 0
    for token in re.findall(r"\\leftarrow|\\.|.", formula, re.S):
        depth += (token in "{([") - (token in "})]")
        if token in ("=", "\\leftarrow") and depth == 0 and pieces[-1].strip():
            pieces.append("")
        pieces[-1] += token
    return pieces
