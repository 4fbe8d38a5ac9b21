"""Images with the same pixels: what a test must not share with the training, and two classes not at all."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from minicnn.data.images import Images

Digests = NDArray[np.uint64]


def digests(x: NDArray[np.uint8]) -> Digests:
    """A number (N,) for each image (N,C,H,W), of 64 bits of a hash: equal pixels have equal numbers."""
    hashes = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in x]
    return np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64)


def tell(parts: dict[str, Images]) -> list[str]:
    """A line for each two parts that share images, and one if images are in several classes."""
    found = {name: digests(images.x) for name, images in parts.items()}
    lines = []
    for first, second in combinations(found, 2):
        shared = int(np.isin(found[second], found[first]).sum())
        if shared:
            lines.append(
                f"{shared:,} of {len(found[second]):,} {second} images have the pixels of {first} images"
            )
    every = np.concatenate(list(found.values()))
    pairs = np.unique(
        np.stack([every, np.concatenate([p.y for p in parts.values()]).astype(np.uint64)]), axis=1
    )
    numbers, classes = np.unique(pairs[0], return_counts=True)
    several = int(np.isin(every, numbers[classes > 1]).sum())
    if several:
        lines.append(f"{several:,} images are in a class and, with the same pixels, in another one too")
    return lines
