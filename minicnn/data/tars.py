"""Reader of tar:PATTERN, tar files as WebDataset writes them: KEY.jpg, and the class in KEY.cls.

Nothing is unpacked to the disk: an image is read from its place in the archive.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from minicnn.data.classes import Labelled, common_root, files_of, parts_of_files, scanned
from minicnn.data.contents import Files, Span, Spans
from minicnn.data.divide import Scanned
from minicnn.data.errors import DataError
from minicnn.data.formats import is_image_name
from minicnn.data.leftovers import is_leftover
from minicnn.data.summary import Summary
from minicnn.regular_file import open_regular

CLASS = "cls"
NO_IMAGE, NO_FILE, FURTHER = "no image", "no regular file", "a further image of a key"

_LONGEST_HEADER = 1 << 20
_LONGEST_CLASS = 1 << 10


class _Sample(NamedTuple):
    """What a tar file has of a key."""

    image: Path | None = None
    label: str | None = None


class _HeadersOnly:
    """A file that reads no more at a time than a header has, whatever a header claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"expected headers of at most {_LONGEST_HEADER:,} bytes, got {size:,}")
        return self._file.read(size)


def scan_tars(pattern: str, summary: Summary) -> Scanned:
    """The images of the tar files that a pattern names, as `classes.files_of` does.

    A key is a member's name up to the first dot after its folders.  Members of other kinds than regular
    files, and files that are neither images nor classes, are passed over.  An image without a class is bad.

    Raises: DataError naming the file
    """
    files = files_of(pattern)
    parts, sources = parts_of_files(files)
    places: dict[Path, Span] = {}
    labelled: dict[str, Labelled] = {}
    for part, some in parts.items():
        labelled[part] = [image for file in some for image in _read(file, places, summary)]
    stamps = {file: Files().stamp(file) for file in files}
    return scanned(common_root(files), Path(pattern), labelled, Spans(places, stamps), sources=sources)


def _read(path: Path, places: dict[Path, Span], summary: Summary) -> Labelled:
    """The images of a tar file, sorted by their keys; ``places`` takes up where they are."""
    samples: dict[str, _Sample] = {}
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for member in _members(path, file):
            name = path / member.name.lstrip("/")
            folder, _, last = member.name.rpartition("/")
            stem, _, suffix = last.partition(".")
            key = f"{folder}/{stem}"
            sample = samples.get(key, _Sample())
            if not member.isreg() or member.issparse():
                if not member.isdir():
                    summary.pass_over(NO_FILE, name)
            elif member.offset_data + member.size > size:
                raise DataError(f"{path}: truncated: {member.name!r:.80} goes beyond the file's end")
            elif suffix.lower() == CLASS:
                samples[key] = sample._replace(label=_label(file, member))
            elif is_leftover(last) or not is_image_name(last):
                summary.pass_over(NO_IMAGE, name)
            elif sample.image is not None:
                summary.pass_over(FURTHER, name)
            else:
                samples[key] = sample._replace(image=name)
                places[name] = Span(path, member.offset_data, member.size)
    labelled = []
    for key in sorted(samples):
        image, label = samples[key]
        if image is not None and label:
            labelled.append((image, label))
        elif image is not None:
            summary.bad[image] = f"expected its class in {image.name.partition('.')[0]}.{CLASS}, got none"
    return labelled


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _HeadersOnly(file)), mode="r:") as archive:
            while (member := archive.next()) is not None:
                cast(Any, archive).members = []  # else memory would hold all of them
                yield member
    except DataError:
        raise
    except Exception as error:  # a damaged header can make tarfile raise any exception
        raise DataError(
            f"{path}: expected a tar file, not compressed, since images are so already: {error}"
        ) from error


def _label(file: BinaryIO, member: tarfile.TarInfo) -> str:
    file.seek(member.offset_data)
    return file.read(min(member.size, _LONGEST_CLASS)).decode("utf-8", "replace").strip()
