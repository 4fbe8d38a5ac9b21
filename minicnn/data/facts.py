"""What is known of each image by its pixels, so that nobody needs to go over all of them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]

ONE_SHADE = 16
"""An image whose values, of 0 to 255, are all less than this apart shows nothing."""


class Facts(NamedTuple):
    """Of N images with C channels.

    digests:        (N,) 64 bits of a hash of each: equal pixels have equal numbers
    total, squares: (N,C) sums of each channel's values, and of their squares
    one_shade:      (N,) whether an image shows nothing: in each channel, all values are within ONE_SHADE
    """

    digests: Digests
    total: NDArray[np.uint64]
    squares: NDArray[np.uint64]
    one_shade: NDArray[np.bool_]

    def of(self, rows: NDArray[np.int64]) -> Facts:
        """The facts of some of the images."""
        return Facts(self.digests[rows], self.total[rows], self.squares[rows], self.one_shade[rows])


def digests(x: NDArray[np.uint8]) -> Digests:
    """A number (N,) for each image (N,C,H,W), of 64 bits of a hash: equal pixels have equal numbers."""
    hashes = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in x]
    return np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64)


def facts_of(pieces: Iterable[NDArray[np.uint8]]) -> Facts:
    """The facts of images, given some (N,C,H,W) at a time."""
    return joined(
        [
            Facts(
                digests(x), x.sum((2, 3), dtype=np.uint64),
                np.square(x, dtype=np.uint16).sum((2, 3), dtype=np.uint64), is_one_shade(x),
            )
            for x in pieces
        ]
    )  # fmt: skip


def joined(parts: Sequence[Facts]) -> Facts:
    """The facts of images that are in several parts, of which there is at least one."""
    return Facts(
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.total for part in parts]),
        np.concatenate([part.squares for part in parts]),
        np.concatenate([part.one_shade for part in parts]),
    )


def is_one_shade(x: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`Facts.one_shade` of images (N,C,H,W)."""
    spread = x.max((2, 3)) - x.min((2, 3))
    return np.asarray(spread.max(1) < ONE_SHADE)


def mean_and_std(facts: Facts, pixels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (C,) of values in [0, 1], from exact integer sums.

    The deviation is 1 for a channel that is constant.

    Args: pixels of each image, H·W
    """
    count = len(facts.total) * pixels
    mean = facts.total.sum(0) / count
    std = np.sqrt(np.maximum(facts.squares.sum(0) / count - mean**2, 0.0))
    return mean / 255, np.where(std > 0, std, 255.0) / 255
