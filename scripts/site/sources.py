"""Finds functions and classes in the project's sources by name, so that no page needs a copy of them.

Python is parsed.  C++ and CUDA are read by matching brackets outside comments and strings.  A name that a
file does not define is an error, so no page can show code that is gone.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Comments, strings and character literals.  Brackets in them do not count.
_OPAQUE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def extract(path: str, name: str) -> str:
    """The text of every function, class or struct ``name`` that the file defines, with its comment.

    Args:   path, relative to the project's root; name, for Python also ``Class.method``
    Raises: LookupError if the file defines no such name
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    pieces = python_pieces(text, name) if path.endswith(".py") else cpp_pieces(text, name)
    if not pieces:
        raise LookupError(f"{path} defines no {name}")
    return re.sub(r"  # fmt: skip$", "", "\n\n".join(pieces), flags=re.M)


def language(path: str) -> str:
    """The language of a file, as the highlighter calls it."""
    return "python" if path.endswith(".py") else "cpp"


def python_pieces(text: str, name: str) -> list[str]:
    """The functions and classes with this dotted name, with their decorators."""
    scope: list[ast.stmt] = ast.parse(text).body
    found: list[ast.stmt] = []
    for part in name.split("."):
        found = [node for node in scope if getattr(node, "name", None) == part]
        scope = [inner for node in found for inner in getattr(node, "body", [])]
    lines = text.splitlines()
    return [_dedent(lines[_first_line(node) - 1 : node.end_lineno]) for node in found]


def cpp_pieces(text: str, name: str) -> list[str]:
    """The definitions of a function, class, struct or macro, with the lines right above them."""
    code = _OPAQUE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    pieces = []
    for match in re.finditer(rf"\b{re.escape(name)}\b", code):
        end = _definition_end(code, match.start(), match.end())
        if end:
            start = _start_of_comment(text, match.start())
            pieces.append(_dedent(text[start:end].splitlines()))
    return pieces


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _dedent(lines: list[str]) -> str:
    code = [line for line in lines if line.strip() and not line.startswith("#")]  # no preprocessor lines
    indent = min((len(line) - len(line.lstrip()) for line in code), default=0)
    return "\n".join((line if line.startswith("#") else line[indent:]).rstrip() for line in lines)


def _definition_end(code: str, start: int, at: int) -> int | None:
    """Where the definition ends whose name is code[start:at]; None if that is a use or a declaration."""
    line = code[code.rfind("\n", 0, start) + 1 : start]
    if re.search(r"\b(struct|class)\s+(alignas\(.*\)\s*)?$", line):
        brace = re.compile(r"[^;{}()]*\{").match(code, at)
        if not brace:
            return None
        end = _matching(code, brace.end() - 1, "{}")
        return end + 1 if code[end : end + 1] == ";" else end
    head = code[max(code.rfind(mark, 0, start) for mark in ";{}") + 1 : start]
    head = re.sub(r"^\s*template\s*<.*>\s*?$", "", head, flags=re.M)  # whose parameters may have defaults
    if not head.strip() or "=" in head or re.search(r"\breturn\b", head):
        return None
    opening = re.compile(r"\s*\(").match(code, at)
    if not opening:
        return None
    closing = _matching(code, opening.end() - 1, "()")
    brace = re.compile(r"\s*(const\s*)?(noexcept\s*)?(override\s*)?\{").match(code, closing)
    return _matching(code, brace.end() - 1, "{}") if brace else None


def _matching(code: str, at: int, pair: str) -> int:
    """The index after the bracket that closes the one at ``at``."""
    opening, closing = pair
    depth = 0
    for place in range(at, len(code)):
        if code[place] == opening:
            depth += 1
        elif code[place] == closing:
            depth -= 1
        if depth == 0:
            return place + 1
    raise LookupError(f"unbalanced {pair} in a source file")


def _start_of_comment(text: str, at: int) -> int:
    """The start of the definition's first line, or of the comment and template lines right above it."""
    start = text.rfind("\n", 0, at) + 1
    while start:
        above = text.rfind("\n", 0, start - 1) + 1
        line = text[above : start - 1].strip()
        if not re.match(r"//|template\b|#pragma|__global__", line):
            break
        start = above
    return start


def fence(code: str, kind: str) -> str:
    """Code as a block of Markdown; code may have fences of its own."""
    return f"``````{kind}\n{code.strip()}\n``````"
