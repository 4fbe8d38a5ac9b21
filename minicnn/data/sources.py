"""Datasets of a user's own: a source lists its images, and what follows is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minicnn.data import duplicates
from minicnn.data.decode import Decoded, Work, decode, refuse_lost_classes, without_bad
from minicnn.data.divide import SHOWN, TEST, TRAIN, VALIDATION, Found, Scanned
from minicnn.data.errors import DataError
from minicnn.data.facts import Facts
from minicnn.data.folder import scan_folder
from minicnn.data.images import Images
from minicnn.data.npz import scan_npz
from minicnn.data.parquet import scan_parquet
from minicnn.data.parts import lacking
from minicnn.data.record import SplitRecord
from minicnn.data.scan import name_below
from minicnn.data.summary import Summary
from minicnn.data.tables import scan_csv
from minicnn.data.tars import scan_tars

FOLDER = "folder"
_SCANS: dict[str, Callable[[str, Summary], Scanned]] = {
    "csv": scan_csv, "npz": scan_npz, "tar": scan_tars, "parquet": scan_parquet,
}  # fmt: skip

FORMS = ("folder:DIR", "csv:FILE", "npz:FILE", "tar:PATTERN", "parquet:PATTERN")
"""How a dataset of one's own is named; `docs/folders.md` says what each is."""


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The decoded images of a source."""

    train: Images
    validation: Images | None
    test: Images
    facts: Facts
    """Of the training images."""
    class_names: list[str]
    record: SplitRecord
    notes: list[str]
    decoded: Decoded


def kind_of(name: str) -> str | None:
    """The source's kind, such as ``folder`` of ``folder:DIR``; None for a dataset that has a name."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in (FOLDER, *_SCANS) else None


def form_of(kind: str) -> str:
    """How a source of this kind is named, such as ``folder:DIR``."""
    return next(form for form in FORMS if form.startswith(f"{kind}:"))


def place_of(name: str) -> Path:
    """The path or pattern that a source's name holds."""
    return Path(name.partition(":")[2]).expanduser()


def scan(name: str, summary: Summary, validation: float | None = None) -> Scanned:
    """The images of a source by their names, none of them read; ``summary`` takes up what is found.

    Raises: DataError naming the file or folder
    """
    kind = kind_of(name)
    if kind == FOLDER:
        return scan_folder(place_of(name), validation, summary)
    if kind is None or not name.partition(":")[2]:
        raise DataError(f"dataset: expected {', '.join(FORMS)}, got {name!r}")
    return _SCANS[kind](str(place_of(name)), summary)


def read(found: Found, work: Work, summary: Summary) -> SourceImages:
    """Decode the images that were found, with their classes and parts.

    If all are grey, x is (N,1,H,W), else all become RGB, (N,3,H,W).

    Raises:  DataError naming the file or folder
    """
    everything = [image for part in found.parts.values() for image in part]
    decoded = decode(everything, work, contents=found.contents, summary=summary)
    images: dict[str, Images] = {}
    facts: dict[str, Facts] = {}
    notes, start = list(found.notes), 0
    for name, part in found.parts.items():
        if name == TRAIN:
            refuse_lost_classes(part, summary, found.class_names)
        listed = without_bad(part, summary)
        images[name], facts[name] = decoded.part(start, listed)
        start += len(listed)
        if name != TRAIN:
            notes += lacking(SHOWN[name], images[name].y.tolist(), found.class_names)
    names = [name_below(found.root, path) for path in images[TEST].paths or ()]
    record = SplitRecord.of_digests({name: part.digests for name, part in facts.items()}, names)
    shown = {SHOWN[name]: (facts[name].digests, images[name].y) for name in images}
    return SourceImages(
        images[TRAIN], images.get(VALIDATION), images[TEST], facts[TRAIN], found.class_names, record,
        [*notes, *duplicates.tell(shown)], decoded,
    )  # fmt: skip
