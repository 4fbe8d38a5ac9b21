"""How often a JPEG file goes over its pixels.

A progressive JPEG refines its pixels scan by scan, and each scan goes over all of them, even one of a few
bytes.  So a small file can ask for hours of work.
"""

from __future__ import annotations

import re

MOST_SCANS = 32
"""A JPEG may have as many scans.  libjpeg writes 10 for a progressive image in colour."""

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # neither a byte of data nor a restart of it


def check_scans(content: bytes) -> None:
    """Raise ValueError if the file is a JPEG of more than MOST_SCANS scans."""
    if content[:2] == bytes([0xFF, _START]) and (scans := count_scans(content)) > MOST_SCANS:
        raise ValueError(f"expected a JPEG of at most {MOST_SCANS} scans, got {scans}")


def count_scans(content: bytes) -> int:
    """The scans of a JPEG file up to its end marker; those of a thumbnail within a segment do not count."""
    scans, place = 0, 2
    while found := _MARKER.search(content, place):
        kind, place = content[found.end() - 1], found.end()
        if kind == _END:
            break
        scans += kind == _SCAN
        if kind != _START:
            place += int.from_bytes(content[place : place + 2], "big")
    return scans
