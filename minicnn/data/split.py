"""Choosing images at random, by a seed, so that the classes stay balanced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def balanced_subset(y: NDArray[np.int64], limit: int, seed: int) -> Indices:
    """Indices, ascending, of ``limit`` labels, with about the same number of each class.

    Each class is shuffled by ``seed``; then the classes take turns, one label each, until ``limit`` are
    chosen.  Therefore a smaller subset is contained in a larger one.  A limit of N or more takes all.

    Args:   y (N,)
    Raises: ValueError if limit is below 1
    """
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 image, got {limit}")
    turn = _turns(y, seed)
    return np.sort(np.lexsort((y, turn))[:limit]).astype(np.int64)


def stratified_split(y: NDArray[np.int64], test_share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices, ascending, of the train part and of the test part, which has this share of every class.

    The share of a class is rounded to whole labels.  A class of at least two is in both parts.
    """
    counts = np.bincount(y)
    test_counts = np.clip(np.rint(counts * test_share), 1, np.maximum(counts - 1, 0))
    test = _turns(y, seed) < test_counts[y]
    return np.flatnonzero(~test), np.flatnonzero(test)


def balanced_class_weight(y: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Weights (K,) for the loss, N / (K * count): a class with fewer labels gets a larger weight.

    With them all classes count alike.  A class without labels gets the weight of a class with one label.

    Args:  y (N,) from 0 to K - 1
    Equal: sklearn.utils.class_weight.compute_class_weight("balanced", ...)
    """
    return len(y) / (num_classes * np.maximum(np.bincount(y, minlength=num_classes), 1))


def _turns(y: NDArray[np.int64], seed: int) -> Indices:
    """Each label's place in the shuffled order of its class, from 0."""
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    starts = np.searchsorted(y[by_class], y[by_class])
    turn = np.empty(len(y), np.int64)
    turn[by_class] = np.arange(len(y)) - starts
    return turn
