"""Seeded, class-balanced choices of images by their labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def balanced_subset(y: NDArray[np.int64], limit: int, seed: int) -> Indices:
    """Indices, ascending, of ``limit`` labels with classes as equal in number as they can be.

    Each class is shuffled by ``seed``, then the classes take turns until ``limit`` are chosen; so a
    smaller subset is contained in a larger one. A limit of N or more takes all.
    """
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 image, got {limit}")
    turn = _turns(y, seed)
    return np.sort(np.lexsort((y, turn))[:limit]).astype(np.int64)


def stratified_split(y: NDArray[np.int64], test_share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices, ascending, of the train and the test part; each class has the same share in both.

    A class of at least two is in both parts: its test part is rounded, and never none nor all.
    """
    counts = np.bincount(y)
    test_counts = np.clip(np.rint(counts * test_share), 1, np.maximum(counts - 1, 0))
    test = _turns(y, seed) < test_counts[y]
    return np.flatnonzero(~test), np.flatnonzero(test)


def balanced_class_weight(y: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Weights (K,) inverse to how often a class is, so that all classes count alike in the loss.

    N / (K * count), as scikit-learn's compute_class_weight("balanced"); a class without a label has the
    weight of one that has one.
    """
    return len(y) / (num_classes * np.maximum(np.bincount(y, minlength=num_classes), 1))


def _turns(y: NDArray[np.int64], seed: int) -> Indices:
    """Each label's place, from 0, in the seeded shuffle of its class."""
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    starts = np.searchsorted(y[by_class], y[by_class])
    turn = np.empty(len(y), np.int64)
    turn[by_class] = np.arange(len(y)) - starts
    return turn
