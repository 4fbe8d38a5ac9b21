"""Reader of parquet:PATTERN, tables with the bytes of an image and its class in each row.

Hugging Face's datasets write an image as a struct of ``bytes`` and ``path``, and the names of the classes
into the metadata of the schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from minicnn.data.classes import Labelled, common_root, files_of, parts_of_files, scanned
from minicnn.data.contents import MOST_BYTES, Content, Files
from minicnn.data.divide import Scanned
from minicnn.data.errors import DataError
from minicnn.data.summary import Summary
from minicnn.memory import check_memory, shown
from minicnn.regular_file import open_regular

MOST_GROUP = 2 << 30
"""Bytes that a row group may have: each process that decodes holds one."""

_LABEL = ("label", "labels", "class", "target")


class _Columns(NamedTuple):
    """The columns of a table: of the images' bytes, of their paths if there is one, and of the classes."""

    bytes: str
    path: str | None
    label: str
    names: list[str] | None


class _Row(NamedTuple):
    file: Path
    column: str
    group: int
    number: int
    """Within the group."""


@dataclass(frozen=True)
class Rows:
    """Each image is in a row of a table."""

    places: dict[Path, _Row]
    stamps: dict[Path, tuple[int, ...]]

    def read(self, path: Path) -> Content:
        row = self.places[path]
        value = _group(row.file, self.stamps[row.file], row.group, row.column)[row.number].as_py()
        if value is None:
            raise ValueError("expected the bytes of an image, got none")
        if len(value) > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES:,} bytes, got {len(value):,}")
        return bytes(value)

    def stamp(self, path: Path) -> tuple[int, ...]:
        row = self.places[path]
        return *self.stamps[row.file], row.group, row.number

    def only(self, paths: Iterable[Path]) -> Rows:
        places = {path: self.places[path] for path in paths}
        return Rows(places, {row.file: self.stamps[row.file] for row in places.values()})


def scan_parquet(pattern: str, summary: Summary) -> Scanned:
    """The images of the tables that a pattern names, as `classes.files_of` does.

    Only the classes and the paths are read.  A row without a class is bad.

    Raises: DataError naming the file, or saying that pyarrow is missing
    """
    files = files_of(pattern)
    parts, sources = parts_of_files(files)
    stamps = {file: Files().stamp(file) for file in files}
    places: dict[Path, _Row] = {}
    labelled: dict[str, Labelled] = {}
    notes: list[str] = []
    names: list[str] | None = None
    for number, (part, some) in enumerate(parts.items()):
        labelled[part] = []
        for file in some:
            with _opened(file) as table:
                columns = _columns(file, table.schema_arrow)
                if number == 0 and file == some[0]:
                    names = columns.names
                    notes.append(f"images: column {columns.bytes}, classes: column {columns.label}")
                elif columns.names != names:
                    raise DataError(f"{file}: expected the classes of {files[0]}, got others")
                labelled[part] += _rows(file, table, columns, places, summary)
    return scanned(common_root(files), Path(pattern), labelled, Rows(places, stamps), names, sources, notes)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError("parquet: needs pyarrow: pip install 'minicnn[parquet]'") from None
    return pyarrow


class _opened:  # noqa: N801, used as a function
    """An open table as a context manager.  All that goes wrong within becomes a DataError."""

    def __init__(self, path: Path) -> None:
        self.path, self.pyarrow = path, _pyarrow()

    def __enter__(self) -> Any:
        try:
            self.file = open_regular(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        try:
            return self.pyarrow.parquet.ParquetFile(self.file)
        except Exception as error:
            self.file.close()
            raise _damaged(self.path, error) from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise _damaged(self.path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: expected an intact Parquet file: {error}")


@lru_cache(maxsize=1)
def _group(file: Path, stamp: tuple[int, ...], group: int, column: str) -> Any:  # noqa: ARG001, part of the key
    """The values of a column in a row group; the last one stays in memory."""
    with _opened(file) as table:
        size = table.metadata.row_group(group).total_byte_size
        if size > MOST_GROUP:
            raise DataError(
                f"{file}: expected row groups of at most {shown(MOST_GROUP)}, got {shown(size)}: write it "
                "again with a smaller row_group_size"
            )
        check_memory(size, f"{file}: a row group", "write it again with a smaller row_group_size")
        found = table.read_row_group(group, columns=[column], use_threads=False).column(0)
        return found if "." not in column else found.combine_chunks().field(column.rpartition(".")[2])


def _columns(file: Path, schema: Any) -> _Columns:
    """Which columns are the images and the classes.  Raises DataError telling the columns there are."""
    types = _pyarrow().types
    features = _features(schema)
    there = ", ".join(f"{field.name}: {field.type}" for field in schema)
    images = [field for field in schema if _has_bytes(field.type, types)]
    images = [field for field in images if features.get(field.name, {}).get("_type") == "Image"] or images
    if not images:
        raise DataError(
            f"{file}: expected a column of images, a struct of bytes and path or binary, got {there:.300}"
        )
    image = images[0]
    inside = {field.name for field in image.type} if types.is_struct(image.type) else set()
    whole = [field for field in schema if types.is_integer(field.type) or _is_text(field.type, types)]
    classes = [field for field in whole if features.get(field.name, {}).get("_type") == "ClassLabel"]
    named = [field for name in _LABEL for field in whole if field.name.lower() == name]
    numbers = [field for field in whole if types.is_integer(field.type)]
    choice = [field for field in named if field in classes] or classes or named or numbers
    if not choice:
        raise DataError(f"{file}: expected a column of classes, such as label, got {there:.300}")
    names = features.get(choice[0].name, {}).get("names")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        names = None
    return _Columns(
        f"{image.name}.bytes" if inside else image.name, f"{image.name}.path" if "path" in inside else None,
        choice[0].name, names,
    )  # fmt: skip


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What Hugging Face's metadata says of each column; nothing if there is none."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in found.items() if isinstance(about, dict)}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _has_bytes(kind: Any, types: Any) -> bool:
    """Whether a column is of images: of bytes, or of structs that have them."""
    if types.is_struct(kind):
        return any(field.name == "bytes" and _has_bytes(field.type, types) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any, types: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _rows(
    file: Path, table: Any, columns: _Columns, places: dict[Path, _Row], summary: Summary
) -> Iterator[tuple[Path, str]]:
    """The images of a table with their classes; ``places`` takes up where they are."""
    wanted = [columns.label, *([columns.path] if columns.path else [])]
    before = 0
    for group in range(table.metadata.num_row_groups):
        read = table.read_row_group(group, columns=wanted, use_threads=False).combine_chunks()
        labels = read.column(columns.label).to_pylist()
        names: list[Any] = [None] * len(labels)
        if columns.path:
            names = [one and one["path"] for one in read.column(columns.path.partition(".")[0]).to_pylist()]
        for number, (label, name) in enumerate(zip(labels, names, strict=True)):
            path = file / f"{before + number:08}"
            path = path / name.lstrip("/") if name else path
            try:
                text = _class(label, columns.names)
            except ValueError as error:
                summary.bad[path] = str(error)
                continue
            places[path] = _Row(file, columns.bytes, group, number)
            yield path, text
        before += len(labels)


def _class(label: Any, names: list[str] | None) -> str:
    if label is None or label == "" or (isinstance(label, float) and math.isnan(label)):
        raise ValueError("expected a class, got none")
    if names is None:
        return str(label)
    if not (isinstance(label, int) and 0 <= label < len(names)):
        raise ValueError(f"expected a class from 0 to {len(names) - 1}, got {label!r:.40}")
    return names[label]
