"""How well a classifier ranks: the right class among the likeliest, a class's images before all others.

These scores need no threshold.  A score that is not defined, because a class has no image or all images,
is None.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

TOP = 5
"""Classes among which the right one is looked for, if there are more than these."""


class TopK(TypedDict):
    """The share of images whose right class is among the ``k`` likeliest."""

    k: int
    accuracy: float


class ClassRanking(TypedDict):
    """How well the probability of one class tells its images from all others."""

    roc_auc: float | None
    average_precision: float | None


def top_k(probabilities: np.ndarray, labels: np.ndarray) -> TopK | None:
    """Top-5 accuracy of probabilities (N,K) and labels (N,); with five classes or fewer, top-(K-1).

    Of classes that are equally likely the last comes first, as in scikit-learn.  None for a single class,
    where no k is below K.

    Equal: sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=range(K))
    """
    from sklearn.metrics import top_k_accuracy_score

    classes = probabilities.shape[1]
    k = min(TOP, classes - 1)
    if k < 1:
        return None
    if k == 1:
        accuracy = np.mean(probabilities.argmax(axis=1) == labels)
    else:
        accuracy = top_k_accuracy_score(labels, probabilities, k=k, labels=range(classes))
    return {"k": k, "accuracy": float(accuracy)}


def one_vs_rest(probabilities: np.ndarray, labels: np.ndarray) -> list[ClassRanking]:
    """Area under the ROC curve, and average precision, of each class against all others.

    Args:    probabilities (N,K), labels (N,) int64
    Returns: one entry a class; its scores are None if no image or every image is of the class
    Equal:   sklearn.metrics.roc_auc_score(labels == k, probabilities[:, k]), and
             average_precision_score of the same
    """
    return [_ranking(labels == k, scores) for k, scores in enumerate(probabilities.T)]


def macro(rankings: list[ClassRanking]) -> ClassRanking:
    """The plain means over the classes that have a score; None if none has.

    Equal: sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr") if no class is empty
    """
    return {
        "roc_auc": _mean([one["roc_auc"] for one in rankings]),
        "average_precision": _mean([one["average_precision"] for one in rankings]),
    }


def _ranking(is_class: np.ndarray, scores: np.ndarray) -> ClassRanking:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if is_class.all() or not is_class.any():
        return {"roc_auc": None, "average_precision": None}
    return {
        "roc_auc": float(roc_auc_score(is_class, scores)),
        "average_precision": float(average_precision_score(is_class, scores)),
    }


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
