"""Cross-entropy of softmax(logits): the loss of a classifier.

With targets t (N,K), class weights w (K,) and log p = logits - logsumexp(logits):

    loss = -(1/D) * sum over n,k of w[k] * t[n,k] * log p[n,k]

A label c stands for the row t that is 1 at c and 0 elsewhere; label smoothing s replaces t by
(1-s)*t + s/K.  D is N; for labels with class weights it is the sum of the labels' weights, as in torch.

With a = w*t, and since d log p[k]/dlogits[j] = delta[k,j] - p[j], with delta[k,j] = 1 if k = j, else 0,

    dlogits[n,j] = (p[n,j] * (sum over k of a[n,k]) - a[n,j]) / D

log p is computed from the logits, and not as the logarithm of p, because p may have been rounded to 0.

Torch: torch.nn.functional.cross_entropy
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.ops.softmax import softmax


def softmax_cross_entropy_forward(
    logits: np.ndarray, labels: np.ndarray, *,
    label_smoothing: float = 0.0, class_weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The mean loss, a 0-d array (NaN for an empty batch), and the probabilities (N,K).

    Args: logits (N,K) · labels int64 (N,) from 0 to K - 1, or probabilities (N,K) · label_smoothing from
          0 to 1 · class_weight (K,) or None
    """
    op = "softmax_cross_entropy"
    shapes.softmax_cross_entropy(op, "logits", logits, labels, label_smoothing, class_weight)
    probs = softmax(logits)
    targets, divisor = _weighted_targets(logits, labels, label_smoothing, class_weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # where the target is 0, log p may be -inf, and 0 * -inf would be NaN
        terms = np.where(targets == 0, logits.dtype.type(0), targets * log_probs)
        loss = -terms.sum() / divisor
    return np.asarray(loss, logits.dtype), probs


def softmax_cross_entropy_backward(
    probs: np.ndarray, labels: np.ndarray, *,
    label_smoothing: float = 0.0, class_weight: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """dlogits (N,K) of the mean loss; probs are the forward's, the other arguments as there."""
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
