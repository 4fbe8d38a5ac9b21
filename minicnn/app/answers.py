"""How predictions are told: as lines, as JSON, or as a table, each as soon as it is there."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from minicnn.files import new_file, to_json
from minicnn.text import certainty, printable

Entry = dict[str, Any]
"""What is said of an image: "image", its path, and "predictions", or "error" where it cannot be read."""


def print_lines(entries: Iterable[Entry]) -> bool:
    """Print a line for each image; returns whether one could not be read."""
    unreadable = False
    for entry in entries:
        if "error" in entry:
            unreadable = True
            continue
        if entry.get("unsure"):
            print(printable(f"{entry['image']}: unsure"))
            continue
        tops = ", ".join(f"{one['class']} {certainty(one['probability'])}" for one in entry["predictions"])
        print(printable(f"{entry['image']}: {tops}"))
    return unreadable


def print_json(entries: Iterable[Entry]) -> bool:
    """Print one document, a list of all entries; returns whether an image could not be read."""
    unreadable, before = False, "[\n"
    for entry in entries:
        unreadable |= "error" in entry
        print(before + textwrap.indent(to_json(entry, indent=2), "  "), end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")
    return unreadable


def print_json_lines(entries: Iterable[Entry]) -> bool:
    """Print an entry a line; returns whether an image could not be read."""
    unreadable = False
    for entry in entries:
        unreadable |= "error" in entry
        print(to_json(entry), flush=True)  # whatever reads them need not wait for more
    return unreadable


def write_csv(path: Path, entries: Iterable[Entry], top: int, *, reject: bool) -> bool:
    """Write a table, a row for each image; returns whether one could not be read.

    Columns: image; class and probability, and again class_2 and probability_2 up to ``top``; with
    ``reject`` also unsure, yes or no; error.

    Raises: OSError naming the file; it is as it was then
    """
    numbers = ["", *(f"_{number}" for number in range(2, top + 1))]
    columns = [f"{what}{number}" for number in numbers for what in ("class", "probability")]
    unreadable = False

    def rows() -> Iterator[list[Any]]:
        nonlocal unreadable
        yield ["image", *columns, *(["unsure"] if reject else []), "error"]
        for entry in entries:
            unreadable |= "error" in entry
            told = [one[key] for one in entry.get("predictions", []) for key in ("class", "probability")]
            told += [""] * (len(columns) - len(told))
            unsure = "" if "unsure" not in entry else "yes" if entry["unsure"] else "no"
            yield [entry["image"], *told, *([unsure] if reject else []), entry.get("error", "")]

    with new_file(path) as file:
        # bytes of file names that are not UTF-8 stay as they are
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        plain = csv.writer(text, lineterminator="\n")
        quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in rows():
            # csv leaves a carriage return unquoted where lines end with another character
            broken = any("\r" in cell for cell in row if isinstance(cell, str))
            (quoted if broken else plain).writerow(row)
        text.detach()
    return unreadable
