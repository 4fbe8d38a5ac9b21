"""Runs the programs of the learning path and keeps what they print, and the numbers that its pages show.

python scripts/site/lessons.py [NAME...]       writes docs/learn/record.json, or these programs' part of it

Each program has a function ``main`` that prints, and returns its numbers as a dict.  The pages and their
pictures take every number from the record.  tests/test_learn.py runs the programs again and compares.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "examples" / "learn"
RECORD = ROOT / "docs" / "learn" / "record.json"
LESSONS = ("pixels", "linear", "convolution", "descent", "backpropagation", "training", "judging")


def run(name: str) -> dict[str, Any]:
    """What the program prints, and the numbers that it returns."""
    if str(PROGRAMS) not in sys.path:
        sys.path.append(str(PROGRAMS))  # where the programs find what they share
    spec = importlib.util.spec_from_file_location(f"lesson_{name}", PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        spec.loader.exec_module(program)
        numbers = program.main()
    return {"output": printed.getvalue().rstrip(), "numbers": json.loads(json.dumps(numbers))}


@lru_cache
def saved() -> dict[str, Any]:
    """The record: program -> its output and numbers."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def output(name: str) -> str:
    """What a program printed, below its command.  Raises LookupError if there is no such program."""
    if name not in saved():
        raise LookupError(
            f"docs/learn/record.json has no program {name!r}; python scripts/site/lessons.py makes it"
        )
    return f"$ python examples/learn/{name}.py\n{saved()[name]['output']}"


def value(path: str, form: str = "") -> str:
    """A saved number as text, for example ``value("linear.weights", ",")``.

    Args:   path, a program and the keys of its numbers, joined by dots · form, as in Python's format()
    Raises: LookupError if there is no such number
    """
    name, *keys = path.split(".")
    found: Any = saved().get(name, {}).get("numbers")
    for key in keys:
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise LookupError(f"docs/learn/record.json has no number {path!r}") from None
    if not isinstance(found, (int, float, str)):
        raise LookupError(
            f"docs/learn/record.json: expected one number at {path!r}, got {type(found).__name__}"
        )
    return format(found, form).replace("-", "−") if not isinstance(found, str) else found


def main() -> None:
    """Run the programs that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=LESSONS, help=", ".join(LESSONS))
    names = parser.parse_args().names or LESSONS
    record = {**(saved() if RECORD.exists() else {}), **{name: run(name) for name in names}}
    lines = [
        f"{json.dumps(name)}: {json.dumps(record[name], ensure_ascii=False)}"
        for name in LESSONS
        if name in record
    ]
    aside = RECORD.with_suffix(".part")
    aside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    aside.replace(RECORD)


if __name__ == "__main__":
    main()
