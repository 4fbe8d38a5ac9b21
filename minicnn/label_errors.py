"""Labels that may be wrong: where a model that did not learn from an image contradicts its label.

Source: Northcutt, Jiang, Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels,
        arXiv:1911.00068
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np


class Disagreement(TypedDict):
    """An image whose likeliest class is not its label.

    ``confident`` says whether ``probability`` is at least the mean probability of that class over the
    images that bear its label.  That is confident learning's threshold: the model is as sure of the
    predicted class as it usually is of images that belong to it.
    """

    index: int
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""
    probability_of_label: float
    confident: bool


def disagreements(probabilities: np.ndarray, labels: np.ndarray) -> list[Disagreement]:
    """The images whose likeliest class is not their label, the most confident first.

    The order is that of the predicted class's probability less the label's.

    Args: probabilities (N,K) from models that were trained without the image in question, as
          sklearn.model_selection.cross_val_predict gives them · labels (N,) int64
    """
    rows, predicted = np.arange(len(labels)), probabilities.argmax(axis=1)
    of_predicted, of_label = probabilities[rows, predicted], probabilities[rows, labels]
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(of_label[wrong] - of_predicted[wrong], kind="stable")]
    thresholds = _mean_self_confidence(probabilities, labels)
    return [
        {
            "index": int(i),
            "label": int(labels[i]),
            "predicted": int(predicted[i]),
            "probability": float(of_predicted[i]),
            "probability_of_label": float(of_label[i]),
            "confident": bool(of_predicted[i] >= thresholds[predicted[i]]),
        }
        for i in order
    ]


def _mean_self_confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each class (K,), the mean of its probability over the images with its label; 1 if it has none."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
