"""How good a classifier is: loss, accuracy, precision, recall, F1, confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N,K) float64 of logits (N,K)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of labels (N,) int64 under logits (N,K), in float64.

    Torch: F.cross_entropy(logits, labels)
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sum - shifted[np.arange(len(labels)), labels]))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's."""
    return float(np.mean(logits.argmax(axis=1) == labels))


def report(logits: np.ndarray, labels: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """Everything about N predictions, ready for JSON.

    Args:    logits (N,K) float, labels (N,) int64, K class names
    Returns: images, accuracy, loss; macro and weighted {precision, recall, f1}; per_class, a list of
             {class, precision, recall, f1, support}; confusion_matrix, K rows of the true class with
             K columns of the predicted one; class_names.
             Precision of a class that was never predicted is 0, and so is recall of one never seen.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, classes = logits.argmax(axis=1), np.arange(len(class_names))

    def scores(average: str | None) -> Any:
        return precision_recall_fscore_support(
            labels, predicted, labels=classes, average=average, zero_division=0
        )

    return {
        "images": len(labels),
        "accuracy": accuracy(logits, labels),
        "loss": cross_entropy(logits, labels),
        **{
            average: {
                key: float(value)
                for key, value in zip(("precision", "recall", "f1"), scores(average), strict=False)
            }
            for average in ("macro", "weighted")
        },
        "per_class": [
            {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(class_names, *scores(None), strict=True)
        ],
        "confusion_matrix": confusion_matrix(labels, predicted, labels=classes).tolist(),
        "class_names": list(class_names),
    }


def worst_mistakes(logits: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The wrong predictions made with most confidence: (row, predicted class, its probability)."""
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [(int(i), int(predicted[i]), float(confidence[i])) for i in order]
