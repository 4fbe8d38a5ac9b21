"""Test-time augmentation: the views of an image whose logits are averaged."""

from __future__ import annotations

from collections.abc import Iterator

from minicnn.ops.make_batch import Table, unchanged

_STILL = (0, 0)
_MOVES = {
    "none": {_STILL: 1.0},
    "flip": {_STILL: 1.0},
    "flip-shift": {_STILL: 0.5, (1, 1): 0.25, (-1, -1): 0.25},
}
"""Name -> how far the image is moved, down and to the right in pixels, and the share of each move."""

TTA = tuple(_MOVES)


def views(count: int, tta: str) -> Iterator[tuple[float, Table]]:
    """Yield, for each view of ``count`` images, its share of the mean and the table that makes it of them.

    "none" is the image itself.  "flip" adds its mirror image.  "flip-shift" also adds both of these moved
    by a pixel, once down and right and once up and left; the new pixels are black.  The shares add up to 1.

    Raises: ValueError if ``tta`` is none of TTA
    Source: Jordan 2024, arXiv:2404.00498, section 3.5
    """
    if tta not in TTA:
        raise ValueError(f"[views] tta: expected one of {', '.join(TTA)}, got {tta}")
    flips = (False,) if tta == "none" else (False, True)
    for (down, right), share in _MOVES[tta].items():
        for flip in flips:
            table = unchanged(count)
            # The image is moved first and mirrored then: mirrored first, it moves the other way.
            table["flip"], table["down"], table["right"] = flip, -down, right if flip else -right
            yield share / len(flips), table
