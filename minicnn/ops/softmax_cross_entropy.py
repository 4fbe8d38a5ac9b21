"""Cross-entropy of softmax(logits): the loss of a classifier.

With targets t (N,K), class weights w (K,) and log p = logits - logsumexp(logits):

    loss = -(1/D) * sum over n,k of w[k] * t[n,k] * log p[n,k]

A label c stands for the row t that is 1 at c and 0 elsewhere; label smoothing s replaces t by
(1-s)*t + s/K.  Rows whose label is ``ignore_index`` have a t of zeros, whatever the smoothing.  D is the
number of the other rows; for labels with class weights it is the sum of their weights, as in torch.  With
reduction="sum" D is 1.  With reduction="none" there is no sum over n, and D is 1.

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
    ignore_index: int = -100, reduction: str = "mean",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The loss, and the probabilities (N,K).

    The loss is a 0-d array, or (N,) with reduction="none".  A mean of no rows is NaN.

    Args: logits (N,K) · labels int64 (N,), each from 0 to K - 1 or ignore_index, or probabilities (N,K) ·
          label_smoothing from 0 to 1 · class_weight (K,) or None · reduction mean, sum or none
    """
    op = "softmax_cross_entropy"
    shapes.softmax_cross_entropy(
        op, "logits", logits, labels, label_smoothing, class_weight, ignore_index, reduction
    )
    probs = softmax(logits)
    targets = _weighted_targets(logits, labels, label_smoothing, class_weight, ignore_index)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Step 1: subtract the largest logit, so that no power overflows.
        shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        # Step 2: take the logarithm of the sum of the powers.
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # Step 3: add up the loss of the targets.
        # where the target is 0, log p may be -inf, and 0 * -inf would be NaN
        terms = np.where(targets == 0, logits.dtype.type(0), targets * log_probs)
        if reduction == "none":
            losses: np.ndarray = -terms.sum(axis=1)
            return losses, probs
        loss = -terms.sum() / _divisor(logits, labels, class_weight, ignore_index, reduction)
    return np.asarray(loss, logits.dtype), probs


def softmax_cross_entropy_backward(
    probs: np.ndarray, labels: np.ndarray, *,
    label_smoothing: float = 0.0, class_weight: np.ndarray | None = None,
    ignore_index: int = -100, reduction: str = "mean",
) -> np.ndarray:  # fmt: skip
    """dlogits (N,K) of the loss; probs are the forward's, the other arguments as there.

    With reduction="none" row n is the gradient of loss n, which depends on no other row.
    """
    op = "softmax_cross_entropy_backward"
    shapes.softmax_cross_entropy(
        op, "probs", probs, labels, label_smoothing, class_weight, ignore_index, reduction
    )
    targets = _weighted_targets(probs, labels, label_smoothing, class_weight, ignore_index)
    # Step 4: the gradient: probabilities minus targets.
    dlogits: np.ndarray = probs * targets.sum(axis=1, keepdims=True)
    dlogits -= targets
    with np.errstate(invalid="ignore", divide="ignore"):
        dlogits /= _divisor(probs, labels, class_weight, ignore_index, reduction)
    if labels.ndim == 1:
        dlogits[labels == ignore_index] = 0  # also where nothing else is left, and D is 0
    return dlogits


def _weighted_targets(
    like: np.ndarray, labels: np.ndarray, label_smoothing: float, class_weight: np.ndarray | None,
    ignore_index: int,
) -> np.ndarray:  # fmt: skip
    """a = w*t after smoothing (N,K)."""
    k = like.shape[1]
    if labels.ndim == 1:
        targets = np.zeros_like(like)
        rows = np.flatnonzero(labels != ignore_index)
        targets[rows, labels[rows]] = 1
    else:
        targets = labels.copy()
    if label_smoothing:
        targets *= 1 - label_smoothing
        targets += label_smoothing / k
    if class_weight is not None:
        targets *= class_weight
    if labels.ndim == 1:
        targets[labels == ignore_index] = 0
    return targets


def _divisor(
    like: np.ndarray, labels: np.ndarray, class_weight: np.ndarray | None, ignore_index: int, reduction: str
) -> np.floating:
    """D."""
    if reduction != "mean":
        divisor: np.floating = like.dtype.type(1)
    elif labels.ndim == 2:
        divisor = like.dtype.type(len(like))
    else:
        counted = labels[labels != ignore_index]
        divisor = like.dtype.type(len(counted)) if class_weight is None else class_weight[counted].sum()
    return divisor
