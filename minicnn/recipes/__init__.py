"""Recipes: readable files of flags for ``python -m minicnn.train --recipe NAME``.

A recipe is a TOML file: each key is a flag without its dashes, each value what would follow it, a list
where that is several numbers, ``true`` for a flag alone and ``false`` for its ``--no-`` form.  The comment
at its top says what it is for and what it aims at; what was measured of it is in results.json.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from minicnn.recipes import results
from minicnn.regular_file import read_regular

_FOLDER = Path(__file__).parent
_SUFFIX = ".toml"
_MOST_BYTES = 1 << 16
"""The largest recipe that is read."""


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))


def arguments(name: str) -> list[str]:
    """The command-line arguments of a recipe: one of `names`, or the path of a .toml file.

    Raises: ValueError naming the file or the flag that is wrong; OSError if a file cannot be read
    """
    file = path(name)
    try:
        flags = tomllib.loads(read_regular(file, _MOST_BYTES).decode())
    except (ValueError, RecursionError) as error:  # an integer may be too long, and a list too deep
        raise ValueError(f"{file}: expected a TOML file of flags: {error}") from None
    found: list[str] = []
    for key, value in flags.items():
        if isinstance(value, bool):
            found.append(f"--{key}" if value else f"--no-{key}")
        elif isinstance(value, (str, int, float)):
            found.append(f"--{key}={value}")
        elif isinstance(value, list) and len(value) > 1 and all(type(one) is int for one in value):
            found += [f"--{key}", *map(str, value)]
        else:
            raise ValueError(
                f"{file}: {key}: expected a text, a number, a list of at least 2 whole numbers, true or "
                f"false, got {value}"
            )
    return found


def about(name: str) -> str:
    """The comment at the top of a recipe."""
    lines = []
    for line in path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def measured(name: str) -> str:
    """What was measured of a recipe as it is now, in a line; empty if nothing was."""
    entry = results.load().get(name)
    if entry is None or entry["settings"] != arguments(name):
        return ""
    return f"Measured: {results.sentence(entry)}"


def path(name: str) -> Path:
    """The file of a recipe: one of `names`, or the path of a .toml file.  Raises ValueError on another."""
    if name.endswith(_SUFFIX):
        return Path(name)
    if name not in names():
        raise ValueError(f"--recipe: expected {', '.join(names())} or a {_SUFFIX} file, got {name}")
    return _FOLDER / f"{name}{_SUFFIX}"
