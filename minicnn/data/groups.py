"""Images that belong together, such as the frames of a clip, and splits that keep them together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn.data.errors import DataError
from minicnn.data.scan import Listed, name_below
from minicnn.data.split import Indices

Groups = NDArray[np.str_]


def group_names(root: Path, listed: Listed, pattern: str) -> Groups:
    """The name of each image's group (N,): what the pattern's first group matches, or else all of it.

    ``pattern`` is a regular expression.  It is searched for in the path below ``root``, with ``/``
    between the folders on every system.

    Raises: DataError naming the file that does not match, or about the pattern
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"group-by {pattern!r}: expected a regular expression: {error}") from None
    names = []
    for path, _ in listed:
        match = compiled.search(name_below(root, path))
        name = match and match[1 if compiled.groups else 0]
        if name is None:
            raise DataError(f"{path}: expected a name that --group-by {pattern!r} matches")
        names.append(name)
    return np.array(names, np.str_)


def group_split(y: NDArray[np.int64], groups: Groups, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices, ascending, of the rest and of the held part, which has whole groups and about this share.

    Groups, shuffled by ``seed``, are held out one by one if that brings the classes nearer to their shares.
    Then each class that has no image in the held part gets its smallest group, if another one is left.

    Args:   y (N,) classes, groups (N,) names
    """
    names, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(y.max(initial=0)) + 1))
    np.add.at(counts, (group, y), 1)
    total = counts.sum(axis=0)
    held = np.zeros(len(names), bool)

    def distance(sums: NDArray[np.float64]) -> float:
        return float((np.abs(sums - share * total) / np.maximum(total, 1)).sum())

    def leaves_all_classes(candidate: int) -> bool:
        left = total - counts[held].sum(axis=0) - counts[candidate]
        return bool((left[counts[candidate] > 0] > 0).all())

    order = np.random.default_rng(seed).permutation(len(names))
    for i in order:
        now = counts[held].sum(axis=0)
        held[i] = leaves_all_classes(i) and distance(now + counts[i]) < distance(now)
    for label in range(len(total)):
        if not counts[held, label].any():
            able = [i for i in order if counts[i, label] and leaves_all_classes(i)]
            if able:
                held[min(able, key=lambda i: counts[i].sum())] = True
    return np.flatnonzero(~held[group]), np.flatnonzero(held[group])
