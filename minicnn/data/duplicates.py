"""Images with the same pixels: what a test must not share with the training, and two classes not at all."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from minicnn.data.facts import Digests


def tell(parts: dict[str, tuple[Digests, NDArray[np.int64]]]) -> list[str]:
    """A line for each two parts that share images, and one if images are in several classes.

    Args: parts the digests (N,) of each part's images, and their classes (N,)
    """
    lines = []
    for first, second in combinations(parts, 2):
        digests = parts[second][0]
        shared = int(np.isin(digests, parts[first][0]).sum())
        if shared:
            lines.append(
                f"{shared:,} of {len(digests):,} {second} images have the pixels of {first} images"
            )
    every = np.concatenate([digests for digests, _ in parts.values()])
    labels = np.concatenate([y for _, y in parts.values()]).astype(np.uint64)
    numbers, classes = np.unique(np.unique(np.stack([every, labels]), axis=1)[0], return_counts=True)
    several = int(np.isin(every, numbers[classes > 1]).sum())
    if several:
        lines.append(f"{several:,} images are in a class and, with the same pixels, in another one too")
    return lines
