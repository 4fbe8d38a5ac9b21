"""A linear classifier: dense layer, softmax, cross-entropy, gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def numeric_gradient(function: Callable[[np.ndarray], float], x: np.ndarray, step: float) -> np.ndarray:
    """The gradient of a function at x, element by element: (f(x + h) - f(x - h)) / 2h.

    x must be the same afterwards as before.
    """
    # BEGIN SOLUTION
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        after, before = x.copy(), x.copy()
        after[place] += step
        before[place] -= step
        gradient[place] = (function(after) - function(before)) / (2 * step)
    return gradient
    # END SOLUTION


def dense_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """y (N,out) of x (N,in), weight (out,in) and bias (out,)."""
    # BEGIN SOLUTION
    return x @ weight.T + bias
    # END SOLUTION


def dense_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight and dbias, in the shapes of x, weight and bias, for dy (N,out)."""
    # BEGIN SOLUTION
    return dy @ weight, dy.T @ x, dy.sum(axis=0)
    # END SOLUTION


def loss_forward(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean cross-entropy, and the probabilities (N,K), of logits (N,K) and labels (N,)."""
    # BEGIN SOLUTION
    shifted = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(sums)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean()), powers / sums
    # END SOLUTION


def loss_backward(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The gradient (N,K) of the mean loss to the logits.  The probabilities must not be changed."""
    # BEGIN SOLUTION
    gradient = probabilities.copy()
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(labels)
    # END SOLUTION


def train(
    x: np.ndarray, labels: np.ndarray, classes: int, *, rate: float, epochs: int, batch_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes,pixels) and bias (classes,) that were trained on x (N,pixels).

    The order of the images is drawn anew for each epoch, from the seed alone.
    """
    # BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    weight, bias = np.zeros((classes, x.shape[1])), np.zeros(classes)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            _, probabilities = loss_forward(dense_forward(x[batch], weight, bias), labels[batch])
            dlogits = loss_backward(probabilities, labels[batch])
            _, dweight, dbias = dense_backward(dlogits, x[batch], weight)
            weight -= rate * dweight
            bias -= rate * dbias
    return weight, bias
    # END SOLUTION
