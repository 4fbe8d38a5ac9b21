"""Cross-entropy of softmax(logits): the loss of a classifier.

With targets t (N,K), class weights w (K,) and log p = logits - logsumexp(logits):

    loss = -(1/D) * sum over n,k of w[k] * t[n,k] * log p[n,k]

A label c stands for the one-hot row t; label smoothing s replaces t by (1-s)*t + s/K.  D is N, or,
for labels with class weights, the sum of the labels' weights: what F.cross_entropy does.

Since d log p[k]/d z[j] = delta[k,j] - p[j], and with a = w*t,

    dlogits[n,j] = (p[n,j] * (sum over k of a[n,k]) - a[n,j]) / D

The logarithm is never taken of a probability, which may have rounded to 0.
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.ops.softmax import softmax


def softmax_cross_entropy_forward(
    logits: np.ndarray, labels: np.ndarray, *,
    label_smoothing: float = 0.0, class_weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean loss, 0-d (NaN for an empty batch), and the probabilities (N,K)."""
    op = "softmax_cross_entropy"
    shapes.softmax_cross_entropy(op, "logits", logits, labels, label_smoothing, class_weight)
    probs = softmax(logits)
    targets, divisor = _weighted_targets(logits, labels, label_smoothing, class_weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # a class that is no target takes no part, however improbable it is
        terms = np.where(targets == 0, logits.dtype.type(0), targets * log_probs)
        loss = -terms.sum() / divisor
    return np.asarray(loss, logits.dtype), probs


def softmax_cross_entropy_backward(
    probs: np.ndarray, labels: np.ndarray, *,
    label_smoothing: float = 0.0, class_weight: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """dlogits (N,K) of the mean loss."""
    op = "softmax_cross_entropy_backward"
    shapes.softmax_cross_entropy(op, "probs", probs, labels, label_smoothing, class_weight)
    targets, divisor = _weighted_targets(probs, labels, label_smoothing, class_weight)
    dlogits: np.ndarray = probs * targets.sum(axis=1, keepdims=True)
    dlogits -= targets
    dlogits /= divisor
    return dlogits


def _weighted_targets(
    like: np.ndarray, labels: np.ndarray, label_smoothing: float, class_weight: np.ndarray | None
) -> tuple[np.ndarray, np.floating]:
    """a = w*t after smoothing (N,K), and the divisor D."""
    n, k = like.shape
    divisor = like.dtype.type(n)
    if labels.ndim == 1:
        targets = np.zeros_like(like)
        targets[np.arange(n), labels] = 1
        if class_weight is not None:
            divisor = class_weight[labels].sum()
    else:
        targets = labels.copy()
    if label_smoothing:
        targets *= 1 - label_smoothing
        targets += label_smoothing / k
    if class_weight is not None:
        targets *= class_weight
    return targets, divisor
