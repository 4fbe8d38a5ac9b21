"""What the site shows besides its Markdown: sources, pictures, formulas, runs of commands.

A page may contain these directives, each on a line of its own:

    {{ source PATH NAME... }}   definitions from a file, or all of it, with a link to the whole file
    {{ printed PATH }}          a saved output of a script, whole; its long lines scroll
    {{ picture NAME }}          a drawing whose numbers are computed here (`pictures.py`)
    {{ run COMMAND }}           an entry of docs/tutorial_run.json: the command and what it printed
    {{ lesson NAME }}           a program of examples/learn and what it printed
    {{ exercises NAME }}        the tasks of examples/learn/tasks/NAME.py, with folded solutions
    {{ implementations }}       the contract and the implementations that the front matter lists
    {{ operations }}            a table of the pages in docs/ops
    {{ layers }}                the API reference of each class that minicnn.layers has

Within a line ``{{ value NAME.KEY FORMAT }}`` stands for a number that a program of examples/learn returned.

The front matter of a page in docs/ops says its section and, in a few words, what the operation does.  It
may also name the steps that its sources number in comments.

The build fails if a page names something that does not exist.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import lessons
import slides
from exercise_text import exercises
from mathml import replace_formulas
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.utils.meta import get_data
from pictures import draw
from sources import ROOT, extract, fence, language

PRIMITIVES = "minicnn/backends/primitives.py"
FUSED = "minicnn/backends/base.py"
LAYERS = "minicnn/layers/__init__.py"
ROOT_PAGES = {
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
FOLDED = {"benchmarks.md", "cuda.md", "session.md"}
SHORT = 8
SECTIONS = (
    "Convolution", "Activations and dense layers", "Pooling", "Normalisation", "Softmax and the loss",
    "Joining and reshaping", "Precision", "Batches", "Optimizers", "Fused",
)  # fmt: skip
_TABLE_ROW = re.compile(r"^\|.*`.*\\\|.*`.*$", re.M)
_DIRECTIVE = re.compile(r"^\{\{ (\w+) ?(.*?) \}\}$", re.M)
_VALUE = re.compile(r"\{\{ value (\S+?)(?: (\S+?))? ?\}\}")
_IMAGE = re.compile(r'<img alt="[^"]*" src="([^"]*images/([\w-]+))\.png" */?>')


# ---- MkDocs calls these -------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Put the pages of docs/ops into the navigation."""
    sections = [
        {section: [f"ops/{path.name}" for path, _ in pages]}
        for section, pages in _operation_pages().items()
    ]
    for entry in config["nav"]:
        if isinstance(entry, dict) and "Operations" in entry:
            entry["Operations"] = ["ops/index.md", *sections]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the documents of the project's root, and a page for each source file that a page shows."""
    shown: set[str] = set()
    covered: set[str] = set()
    for file in list(files.documentation_pages()):
        text, meta = get_data(file.content_string)
        shown |= {parts.split()[0] for name, parts in _DIRECTIVE.findall(text) if name == "source"}
        for listing in meta.get("sources", {}).values():
            shown |= set(listing)
        covered |= set(meta.get("ops", []))
    missing = operations() - covered
    if missing:
        raise PluginError(f"operations without a page in docs/ops: {', '.join(sorted(missing))}")
    for page, path in ROOT_PAGES.items():
        text = (ROOT / path).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "course-slides.html", content=slides.deck()))
    for path in sorted(shown):
        files.append(File.generated(config, f"source/{path}.md", content=_whole_file(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the directives of a page by what they stand for."""

    def expand(match: re.Match[str]) -> str:
        name, rest = match[1], match[2].split()
        try:
            if name == "source":
                return _source(rest[0], rest[1:], page)
            if name == "printed":
                output = fence((ROOT / rest[0]).read_text(encoding="utf-8"), "text")
                return f'<div class="printed" markdown>\n\n{output}\n\n</div>'
            if name == "picture":
                return draw(*rest)
            if name == "lesson":
                return fence(lessons.output(rest[0]), "console")
            if name == "exercises":
                return exercises(rest[0])
            if name == "run":
                return _recorded(match[2])
            if name == "operations":
                return _operations_table()
            if name == "layers":
                return _layers()
            if name == "implementations":
                return _implementations(page)
        except LookupError as error:
            raise PluginError(f"{page.file.src_uri}: {error.args[0]}") from error
        raise PluginError(f"{page.file.src_uri}: no directive {name!r}")

    # GitHub needs a backslash before a bar in a table's code; Python-Markdown would show it
    markdown = _TABLE_ROW.sub(lambda row: row[0].replace("\\|", "|"), markdown)
    markdown = _DIRECTIVE.sub(expand, markdown)
    return _VALUE.sub(lambda match: _value(match, page), markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Replace formulas by MathML, show plots in both themes, fold the long tables of measurements."""
    html = both_themes(replace_formulas(html))
    return fold_tables(html) if page.file.src_uri in FOLDED else html


def fold_tables(html: str) -> str:
    """Put tables of more than SHORT rows behind a line that says how long they are."""

    def fold(match: re.Match[str]) -> str:
        rows = match[0].count("<tr>") - 1
        if rows <= SHORT:
            return match[0]
        first = re.sub(r"<[^>]*>", "", re.findall(r"<th[^>]*>(.*?)</th>", match[0])[0])
        return f"<details><summary>{rows} rows, by {first}</summary>{match[0]}</details>"

    return re.sub(r"<table>.*?</table>", fold, html, flags=re.S)


def both_themes(html: str) -> str:
    """Where docs/images has NAME-dark.png beside NAME.png, show each in its theme."""

    def pair(match: re.Match[str]) -> str:
        if not (ROOT / "docs" / "images" / f"{match[2]}-dark.png").exists():
            return match[0]
        light = match[0].replace(f"{match[1]}.png", f"{match[1]}.png#only-light")
        return light + match[0].replace(f"{match[1]}.png", f"{match[1]}-dark.png#only-dark")

    return _IMAGE.sub(pair, html)


# ---- the parts of a page ------------------------------------------------------------------------------


def operations() -> set[str]:
    """The names of all operations of the contract, without _forward and _backward."""
    names = set()
    for path in (PRIMITIVES, FUSED):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        methods = [node.name for cls in classes for node in cls.body if isinstance(node, ast.FunctionDef)]
        names |= {re.sub(r"_(forward|backward)$", "", name) for name in methods if not name.startswith("_")}
    return names - {"label", "asarray", "to_numpy", "synchronize", "multiplying"}


def _operation_pages() -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """Section -> its pages in docs/ops with their front matter, the shortest names first."""
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {section: [] for section in SECTIONS}
    for path in sorted((ROOT / "docs/ops").glob("*.md"), key=lambda path: (len(path.stem), path.stem)):
        if path.stem == "index":
            continue
        _, meta = get_data(path.read_text(encoding="utf-8"))
        if meta.get("section") not in found or "summary" not in meta:
            raise PluginError(f"{path}: expected a summary, and a section of {', '.join(SECTIONS)}")
        found[meta["section"]].append((path, meta))
    return found


def _operations_table() -> str:
    rows = ["| operation | what it does |", "|---|---|"]
    for section, pages in _operation_pages().items():
        rows.append(f"| **{section}** | |")
        rows += [f"| [{path.stem}]({path.name}) | {meta['summary']} |" for path, meta in pages]
    return "\n".join(rows)


def _layers() -> str:
    """A line for mkdocstrings for each name that minicnn.layers imports."""
    tree = ast.parse((ROOT / LAYERS).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return "\n".join(f"::: {node.module}.{alias.name}" for node in imports for alias in node.names)


def _contract(op: str) -> str:
    """The source of this operation's methods in the contract."""
    pieces = []
    for method in (op, f"{op}_forward", f"{op}_backward"):
        with contextlib.suppress(LookupError):
            pieces.append(extract(PRIMITIVES, f"Primitives.{method}").replace("@abstractmethod\n", ""))
    if not pieces:
        raise LookupError(f"the contract has no operation {op}")
    return "\n\n\n".join(pieces)


def _implementations(page: Any) -> str:
    parts = []
    # a fused operation's definition in FUSED is its contract, and is shown as an implementation
    if not any(FUSED in listing for listing in page.meta["sources"].values()):
        contract = "\n\n\n".join(_contract(op) for op in page.meta["ops"])
        parts += ["## The contract", fence(contract, "python")]
    parts.append("## The implementations")
    if "steps" in page.meta:
        steps = [f"{number}. {step}" for number, step in enumerate(page.meta["steps"], 1)]
        parts += [
            "The steps that are numbered in all of them, wherever they stand there:",
            "\n".join(steps),
        ]
    for tab, listing in page.meta["sources"].items():
        parts.append(f'=== "{tab}"')
        for path, names in listing.items():
            block = _source(path, names, page)
            parts.append("\n".join(f"    {line}" if line else "" for line in block.splitlines()))
    return "\n\n".join(parts)


def _source(path: str, names: list[str], page: Any) -> str:
    """Definitions from a file, or all of it, below a link to the page of the whole file."""
    up = "../" * page.file.src_uri.count("/")
    code = (
        "\n\n".join(extract(path, name) for name in names)
        if names
        else (ROOT / path).read_text(encoding="utf-8")
    )
    return f"[`{path}`]({up}source/{path}.md)\n\n{fence(code, language(path))}"


def _whole_file(path: str) -> str:
    """The page of a source file, which is left out of the search."""
    code = fence((ROOT / path).read_text(encoding="utf-8"), language(path))
    return f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {Path(path).name}\n\n`{path}`\n\n{code}\n"


def _value(match: re.Match[str], page: Any) -> str:
    try:
        return lessons.value(match[1], match[2] or "")
    except LookupError as error:
        raise PluginError(f"{page.file.src_uri}: {error.args[0]}") from error


def _recorded(command: str) -> str:
    """A command of the tutorial and what it printed when scripts/site/record.py ran it."""
    runs = json.loads((ROOT / "docs/tutorial_run.json").read_text(encoding="utf-8"))
    for run in runs["runs"]:
        if run["command"] == command:
            return fence(f"$ {command}\n{run['output']}".rstrip(), "console")
    raise LookupError(
        f"docs/tutorial_run.json has no run of {command!r}; python scripts/site/record.py makes it"
    )
