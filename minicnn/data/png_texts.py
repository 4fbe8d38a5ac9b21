"""PNG files without their texts, which programs fill with megabytes of history, and Pillow then refuses."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SIGNATURE = 8
_AROUND = 12  # bytes of a chunk besides its data: length, type, checksum
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # the colour profile is not used either, and may be large too
_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif")
_LONGEST = 1 << 20  # Pillow refuses a compressed text that is longer


def without_texts(content: bytes) -> bytes:
    """A PNG file's bytes without texts and colour profile.

    Texts that can hold the image's orientation stay, unless they are compressed and longer than a megabyte.
    What is no chunk stays too, so that the decoder says what is wrong.
    """
    if not any(kind in content for kind in _TEXTS):
        return content
    kept = bytearray(content[:_SIGNATURE])
    for chunk in _chunks(content):
        if _is_needed(chunk):
            kept += chunk
    return bytes(kept)


def _chunks(content: bytes) -> Iterator[memoryview]:
    """Each chunk whole; the last one has whatever is left."""
    rest = memoryview(content)[_SIGNATURE:]
    while rest:
        length = _AROUND + int.from_bytes(rest[:4], "big")
        yield rest[:length]
        rest = rest[length:]


def _is_needed(chunk: memoryview) -> bool:
    kind = bytes(chunk[4:8])
    if kind not in _TEXTS:
        return True
    keyword, _, text = bytes(chunk[8:-4]).partition(b"\0")
    if keyword not in _ORIENTATION:
        return False
    if kind == b"zTXt":
        return not _is_long(text[1:])
    if kind == b"iTXt" and text[:1] == b"\1":
        *_, compressed = text[2:].split(b"\0", 2)  # after its language, and the keyword in that language
        return not _is_long(compressed)
    return True


def _is_long(compressed: bytes) -> bool:
    """Whether a compressed text is too long, or no compressed text."""
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(compressed, _LONGEST)
    except zlib.error:
        return True
    return bool(unpacker.unconsumed_tail)
