"""Reader of csv:FILE, a table with a row for each image: its path, its class and perhaps its part."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from minicnn.data.classes import Labelled, scanned
from minicnn.data.contents import Files
from minicnn.data.divide import PARTS, TRAIN, Scanned
from minicnn.data.errors import DataError
from minicnn.data.parts import part_of
from minicnn.data.summary import Summary
from minicnn.regular_file import read_regular

MOST_BYTES = 1 << 28
"""The largest table that is read."""

_PATH = ("path", "file", "filename", "image")
_LABEL = ("label", "class")
_PART = ("split", "part")
_DELIMITERS = ",;\t"


def scan_csv(file: str, summary: Summary) -> Scanned:
    """The images that a table lists; paths are relative to its folder.

    The first line names the columns: ``path`` (or file, filename, image), ``label`` (or class) and perhaps
    ``split`` (or part), in any order and among others.  Rows that cannot be used are bad, as files are.

    Raises: DataError naming the file, or the lines that are wrong
    """
    path = Path(file)
    lines = io.StringIO(_text(path), newline="")  # as csv wants it: str.splitlines also cuts inside fields
    header, delimiter = _header(path, lines.readline().rstrip("\r\n"))
    parts: dict[str, Labelled] = {part: [] for part in PARTS}
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            summary.bad[path / f"line {reader.line_num + 1}"] = f"expected a row of a table: {error}"
            continue
        if row is None:
            break
        if not any(row):
            continue
        try:
            part, image, label = _read(row, header)
        except ValueError as error:
            summary.bad[path / f"line {reader.line_num + 1}"] = str(error)
            continue
        parts[part].append((path.parent / image, label))
    used = [part for part in parts if parts[part]]
    sources = f"parts by the column {header['part'][0]!r}" if "part" in header and len(used) > 1 else ""
    return scanned(path.parent, path, parts, Files(), sources=sources)


def _text(path: Path) -> str:
    try:
        return read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line}: expected text in UTF-8") from None


def _header(path: Path, line: str) -> tuple[dict[str, tuple[str, int]], str]:
    """The column of each thing by name and number, and the delimiter."""
    for delimiter in _DELIMITERS:
        names = [name.strip().strip('"').lower() for name in line.split(delimiter)]
        found = {}
        for thing, choices in (("path", _PATH), ("label", _LABEL), ("part", _PART)):
            column = next((name for name in choices if name in names), None)
            if column is not None:
                found[thing] = column, names.index(column)
        if "path" in found and "label" in found:
            return found, delimiter
    raise DataError(f"{path}: line 1: expected the names of the columns, path,label, got {line!r:.80}")


def _read(row: list[str], header: dict[str, tuple[str, int]]) -> tuple[str, str, str]:
    """Part, path and label of a row."""
    values = {}
    for thing, (column, number) in header.items():
        if number >= len(row) or not row[number].strip():
            if thing == "part":
                continue
            raise ValueError(f"expected a {column}, got none")
        values[thing] = row[number].strip()
    if "\0" in values["path"]:
        raise ValueError("expected a path, got one with a zero byte")
    part = part_of(values["part"]) if "part" in values else TRAIN
    if part is None:
        raise ValueError(f"expected train, val or test as {header['part'][0]}, got {values['part']!r:.40}")
    return part, values["path"], values["label"]
