"""Reading a gzip file piece by piece, however it is made: no read takes more memory than it asks for.

Python's gzip module reads a name in the header byte by byte and goes through any number of empty members,
so that a file can keep it busy for minutes.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

MOST_MEMBERS = 1000
"""A gzip file may have as many members, which are gzip files one after the other."""

_PIECE = 1 << 16
_GZIP = 31  # zlib's number for a gzip header and a window of any size


class Gunzip:
    """The unpacked content of an open gzip file.

    Raises: EOFError if the file ends within a member; zlib.error if it is corrupt
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._packed, self._members = file, b"", 0
        self._inflate = zlib.decompressobj(_GZIP)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        found = bytearray()
        while len(found) < size:
            if self._inflate.eof and not self._next_member():
                break
            self._packed = self._packed or self._file.read(_PIECE)
            if not self._packed:
                raise EOFError("it ends within its data")
            found += self._inflate.decompress(self._packed, min(_PIECE, size - len(found)))
            self._packed = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        return bytes(found)

    def _next_member(self) -> bool:
        """Begin the next member, if there is one; zeros after the last are padding."""
        self._packed = self._packed.lstrip(b"\0")
        while not self._packed:
            piece = self._file.read(_PIECE)
            if not piece:
                return False
            self._packed = piece.lstrip(b"\0")
        self._members += 1
        if self._members >= MOST_MEMBERS:
            raise zlib.error(f"more than {MOST_MEMBERS} members")
        self._inflate = zlib.decompressobj(_GZIP)
        return True
