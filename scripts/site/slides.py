"""The slides of the course: `course/slides.md` as one HTML file that fetches nothing.

A line ``---`` ends a slide.  A slide may have formulas, code, and lines of their own of these two kinds:

    {{ picture NAME }}          a drawing of the site
    {{ source PATH NAME }}      a definition from the sources

Keys go from slide to slide: arrows, space, Home, End.  Printed, each slide is a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import markdown
from mathml import replace_formulas
from pictures import draw
from sources import ROOT, extract, fence, language

SLIDES = ROOT / "course" / "slides.md"
EXTENSIONS = ["tables", "md_in_html", "pymdownx.superfences", "pymdownx.arithmatex"]
STYLE = """
:root { color-scheme: light dark; --md-default-fg-color: light-dark(#222, #e4e4e4);
  --md-default-fg-color--light: light-dark(#666, #aaa); }
html { scroll-snap-type: y proximity; font: 1.55vmax/1.45 system-ui, sans-serif; }
body { margin: 0; background: light-dark(#fff, #1e2129); color: var(--md-default-fg-color); }
section { box-sizing: border-box; min-height: 100vh; padding: 5vh 8vw; scroll-snap-align: start;
  display: flex; flex-direction: column; justify-content: safe center; position: relative; }
section::after { content: attr(data-number); position: absolute; right: 2vw; bottom: 2vh; font-size: 0.6em;
  color: var(--md-default-fg-color--light); }
h1 { font-size: 2.1em; } h2 { font-size: 1.5em; margin: 0 0 0.6em; }
p, ul, ol { margin: 0.4em 0; } li { margin: 0.25em 0; }
pre { font-size: 0.62em; line-height: 1.4; overflow-x: auto; padding: 0.8em 1em; border-radius: 6px;
  background: light-dark(#f3f4f7, #2a2e38); }
code { font-family: ui-monospace, monospace; }
table { border-collapse: collapse; } th, td { padding: 0.25em 0.9em; text-align: left;
  border-bottom: 1px solid light-dark(#ccc, #444); }
.picture { margin: 1em 0 !important; } .picture svg { height: 54vh; width: auto; }
.picture figcaption { font-size: 0.65em !important; max-width: 50rem !important; }
@media print { @page { size: 297mm 167mm; margin: 0; } section { break-after: page; min-height: 166mm; } }
"""
KEYS = """
const slides = [...document.querySelectorAll("section")];
const shown = () => slides.findLastIndex((slide) => slide.getBoundingClientRect().top <= innerHeight / 2);
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, " ": 1, PageDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 };
  const to = { Home: 0, End: slides.length - 1 }[event.key] ?? shown() + step[event.key];
  if (!slides[to]) return;
  event.preventDefault();
  slides[to].scrollIntoView();
});
"""
_DIRECTIVE = re.compile(r"^\{\{ (picture|source) (.*?) \}\}$", re.M)


def texts() -> list[str]:
    """The slides' Markdown."""
    return re.split(r"^---$\n?", SLIDES.read_text(encoding="utf-8"), flags=re.M)


def deck() -> str:
    """All slides as HTML.  Raises LookupError if a picture or a definition does not exist."""
    css = (ROOT / "docs/stylesheets/extra.css").read_text(encoding="utf-8")
    pictures = "\n".join(line for line in css.splitlines() if re.match(r"\.(picture|formula)|math ", line))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>minicnn: slides</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{pictures}{STYLE}</style>\n{''.join(_sections())}<script>{KEYS}</script>\n</html>\n"
    )


def _sections() -> Iterator[str]:
    for number, text in enumerate(texts(), 1):
        html = markdown.markdown(
            _DIRECTIVE.sub(_expanded, text),
            extensions=EXTENSIONS,
            extension_configs={"pymdownx.arithmatex": {"generic": True}},
        )
        yield f'<section data-number="{number}">\n{replace_formulas(html)}\n</section>\n'


def _expanded(match: re.Match[str]) -> str:
    name, *rest = match[2].split()
    return draw(name, *rest) if match[1] == "picture" else fence(extract(name, rest[0]), language(name))
