"""Whether a classifier's confidence can be believed, and temperature scaling, which corrects it.

An image's confidence is the probability of its likeliest class.  It is calibrated if, of the images with
confidence 0.8, 80 % are right.

Source: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599
"""

from __future__ import annotations

import itertools
from typing import TypedDict

import numpy as np

from minicnn.metrics import cross_entropy, softmax

BINS = 15
"""Bins of equal width in which confidences are gathered; Guo et al. take as many."""

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""The confidences at which `coverage` is reported."""

LOWEST, HIGHEST = 0.01, 100.0
"""The range of temperatures."""


class Bin(TypedDict):
    """The images with a confidence above ``low`` and up to ``high``; without any, the means are None."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


class Calibration(TypedDict):
    """How far confidence and accuracy are apart."""

    expected_calibration_error: float
    negative_log_likelihood: float
    bins: list[Bin]


class Kept(TypedDict):
    """What is left when answers with less confidence than ``threshold`` are rejected.

    ``coverage`` is the share of the images that are kept; ``accuracy``, on them, is None if there are none.
    """

    threshold: float
    images: int
    coverage: float
    accuracy: float | None


def scaled(logits: np.ndarray, temperature: float | None) -> np.ndarray:
    """Logits divided by the temperature, if there is one; the likeliest class stays the same."""
    return logits if temperature is None else logits / temperature


def confidence(logits: np.ndarray) -> np.ndarray:
    """The probability (N,) of the likeliest class of each row of logits (N,K)."""
    return np.asarray(softmax(logits).max(axis=1))


def measure(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Reliability, expected calibration error and negative log-likelihood of logits (N,K), labels (N,).

    The expected calibration error is the mean over `BINS` bins of equal width of |accuracy - confidence|,
    each bin weighted by its share of the images.

    Torch: the negative log-likelihood is F.cross_entropy(logits, labels)
    Equal: the bins that have images are those of
           sklearn.calibration.calibration_curve(right, confidence, n_bins=BINS)
    """
    bins = reliability(logits, labels)
    gaps = [
        one["images"] * abs(one["accuracy"] - one["confidence"])
        for one in bins
        if one["accuracy"] is not None and one["confidence"] is not None
    ]
    return {
        "expected_calibration_error": sum(gaps) / len(labels),
        "negative_log_likelihood": cross_entropy(logits, labels),
        "bins": bins,
    }


def reliability(logits: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Mean confidence and accuracy of the images in each of `BINS` bins, the lowest first."""
    sure, right = confidence(logits), logits.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, sure) - 1, 0, BINS - 1)
    found: list[Bin] = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = place == number
        found.append(
            {
                "low": float(low),
                "high": float(high),
                "images": int(inside.sum()),
                "confidence": float(sure[inside].mean()) if inside.any() else None,
                "accuracy": float(right[inside].mean()) if inside.any() else None,
            }
        )
    return found


def coverage(logits: np.ndarray, labels: np.ndarray) -> list[Kept]:
    """What is kept at each of `THRESHOLDS`, and how often it is right.

    Args: logits (N,K), labels (N,) int64
    """
    sure, right = confidence(logits), logits.argmax(axis=1) == labels
    kept = [(threshold, sure >= threshold) for threshold in THRESHOLDS]
    return [
        {
            "threshold": threshold,
            "images": int(rows.sum()),
            "coverage": float(rows.mean()),
            "accuracy": float(right[rows].mean()) if rows.any() else None,
        }
        for threshold, rows in kept
    ]


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that minimises the negative log-likelihood of logits / T.

    In 1/T the negative log-likelihood is convex, so its derivative is 0 once at most: where the mean logit
    that the probabilities expect is the mean logit of the labels.  The result is from 0.01 to 100.  Where
    every image is right, the likelihood only grows as T falls: the result is 1 then, which changes nothing.

    Args:  logits (N,K) of images that were not trained on, labels (N,) int64
    Equal: sklearn.calibration.CalibratedClassifierCV(..., method="temperature"), from scikit-learn 1.8 on
    """
    from scipy.optimize import brentq

    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    wide = logits.astype(np.float64)
    of_labels = wide[np.arange(len(labels)), labels].mean()

    def slope(log_temperature: float) -> float:
        expected = (softmax(wide / np.exp(log_temperature)) * wide).sum(axis=1)
        return float(expected.mean() - of_labels)

    low, high = np.log(LOWEST), np.log(HIGHEST)
    if slope(low) <= 0:
        return LOWEST
    if slope(high) >= 0:
        return HIGHEST
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))
