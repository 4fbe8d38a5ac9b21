"""Tests of assignment 2."""

from __future__ import annotations

import learning
import numpy as np
import pytest

from minicnn import data
from minicnn.ops import softmax_cross_entropy
from minicnn.testing import assert_close, assert_slope


@pytest.mark.task_2_1
def test_numeric_gradient() -> None:
    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.5]])
    before = x.copy()
    found = learning.numeric_gradient(lambda v: float((v**3).sum() + v[0, 1] * v[1, 2]), x, 1e-5)
    expected = 3 * x**2
    expected[0, 1] += x[1, 2]
    expected[1, 2] += x[0, 1]
    assert_close(found, expected, 1e-8, "gradient")
    np.testing.assert_array_equal(x, before)


@pytest.mark.task_2_1
def test_differences_are_central() -> None:
    """A difference to one side alone would be wrong by 0.1 here."""
    assert learning.numeric_gradient(lambda v: float(v[0] ** 2), np.array([1.0]), 0.1) == pytest.approx(2.0)


@pytest.mark.task_2_2
def test_dense() -> None:
    rng = np.random.default_rng(0)
    point = {
        name: rng.standard_normal(shape) for name, shape in (("x", (4, 5)), ("w", (3, 5)), ("b", (3,)))
    }
    dy = rng.standard_normal((4, 3))
    x, w, b = point.values()
    expected = np.array(
        [[sum(x[n, i] * w[o, i] for i in range(5)) + b[o] for o in range(3)] for n in range(4)]
    )
    assert_close(learning.dense_forward(x, w, b), expected, 1e-12, "y")
    gradients = dict(zip(point, learning.dense_backward(dy, x, w), strict=True))
    assert {name: g.shape for name, g in gradients.items()} == {name: p.shape for name, p in point.items()}
    assert_slope(
        lambda p: float((learning.dense_forward(p["x"], p["w"], p["b"]) * dy).sum()), point, gradients, rng
    )


@pytest.mark.task_2_3
def test_loss() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    loss, probabilities = learning.loss_forward(logits, labels)
    expected, expected_p = softmax_cross_entropy.softmax_cross_entropy_forward(logits, labels)
    assert loss == pytest.approx(float(expected), rel=1e-12)
    assert_close(probabilities, expected_p, 1e-12, "probabilities")
    given = probabilities.copy()
    gradient = learning.loss_backward(probabilities, labels)
    np.testing.assert_array_equal(probabilities, given)
    assert_slope(lambda p: learning.loss_forward(p["x"], labels)[0], {"x": logits}, {"x": gradient}, rng)


@pytest.mark.task_2_3
def test_large_scores_do_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        loss, probabilities = learning.loss_forward(np.array([[1000.0, 0.0]]), np.array([1]))
    assert loss == pytest.approx(1000)
    np.testing.assert_array_equal(probabilities, [[1, 0]])


@pytest.mark.task_2_4
def test_training() -> None:
    clothes = data.load("fashion-mnist-sample", limit_train=1500, limit_test=500)
    x, unseen = (
        (part.x.reshape(len(part.x), -1) / 255.0)[:, ::2] for part in (clothes.train, clothes.test)
    )
    settings = {"rate": 0.1, "batch_size": 50}
    weight, bias = learning.train(x, clothes.train.y, 10, seed=0, epochs=10, **settings)
    right = (learning.dense_forward(unseen, weight, bias).argmax(axis=1) == clothes.test.y).mean()
    assert right > 0.74, f"{right:.1%} of the unseen images are right"
    first, again, other = (
        learning.train(x[:200], clothes.train.y[:200], 10, seed=seed, epochs=1, **settings)[0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(again, first, err_msg="the same seed must give the same weights")
    assert (other != first).any(), "another seed must give another order"
