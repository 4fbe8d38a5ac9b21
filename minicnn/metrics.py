"""How good a classifier is: loss, accuracy, precision, recall, F1, confusion matrix, and how it ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import ranking


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
    Returns: images, accuracy, loss; top_k {k, accuracy}; macro and weighted {precision, recall, f1}, macro
             also {roc_auc, average_precision}; per_class, a list of {class, precision, recall, f1,
             support, roc_auc, average_precision}; confusion_matrix, K rows of the true class with K columns
             of the predicted one; class_names.
             Precision of a class that was never predicted is 0, and so is recall of one never seen.  A
             ranking score of a class without images, or with all of them, is None.
    Raises:  ValueError if a logit is not finite
    """
    if not np.isfinite(logits).all():
        rows = int((~np.isfinite(logits)).any(axis=1).sum())
        raise ValueError(f"logits: expected finite numbers, got others for {rows} of {len(logits)} images")
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, classes = logits.argmax(axis=1), np.arange(len(class_names))
    probabilities = softmax(logits)
    rankings = ranking.one_vs_rest(probabilities, labels)

    def scores(average: str | None) -> Any:
        return precision_recall_fscore_support(
            labels, predicted, labels=classes, average=average, zero_division=0
        )

    def averaged(average: str) -> dict[str, float]:
        pairs = zip(("precision", "recall", "f1"), scores(average), strict=False)
        return {key: float(value) for key, value in pairs}

    return {
        "images": len(labels),
        "accuracy": accuracy(logits, labels),
        "loss": cross_entropy(logits, labels),
        "top_k": ranking.top_k(probabilities, labels),
        "macro": {**averaged("macro"), **ranking.macro(rankings)},
        "weighted": averaged("weighted"),
        "per_class": [
            {
                "class": name,
                "precision": float(p),
                "recall": float(r),
                "f1": float(f),
                "support": int(s),
                **ranks,
            }
            for name, p, r, f, s, ranks in zip(class_names, *scores(None), rankings, strict=True)
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
