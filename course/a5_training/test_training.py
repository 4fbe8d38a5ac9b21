"""Tests of assignment 5."""

from __future__ import annotations

import numpy as np
import pytest
import training

from minicnn import Trainer, data, optim
from minicnn.ops.optimizers import adam_step, sgd_step
from minicnn.testing import assert_close


def two_copies(count: int) -> list[list[np.ndarray]]:
    """A weight, and state that is 0, twice."""
    w = np.random.default_rng(0).standard_normal((3, 4))
    return [[w.copy(), *(np.zeros((3, 4)) for _ in range(count))] for _ in range(2)]


@pytest.mark.task_5_1
def test_sgd() -> None:
    mine, theirs = two_copies(1)
    for step in range(3):
        gradient = np.random.default_rng(step + 1).standard_normal((3, 4))
        training.sgd_step(mine[0], gradient, mine[1], rate=0.1, momentum=0.9, decay=0.01)
        sgd_step(
            [theirs[0]], [gradient], [theirs[1]], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=False
        )
        assert_close(mine[0], theirs[0], 1e-12, f"w after step {step + 1}")


@pytest.mark.task_5_2
def test_adamw() -> None:
    mine, theirs = two_copies(2)
    betas = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
    for step in range(1, 4):
        gradient = np.random.default_rng(step).standard_normal((3, 4))
        training.adamw_step(mine[0], gradient, mine[1], mine[2], rate=0.1, decay=0.2, step=step, **betas)
        adam_step(
            *([array] for array in (theirs[0], gradient, *theirs[1:])),
            lr=0.1, weight_decay=0.2, decoupled=True, step=step, **betas,
        )  # fmt: skip
        assert_close(mine[0], theirs[0], 1e-10, f"w after step {step}")


@pytest.mark.task_5_3
def test_confusion() -> None:
    labels, called = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 0])
    matrix = training.confusion(labels, called, 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [1, 2, 0], [1, 0, 0]])
    with np.errstate(all="raise"):
        assert training.macro_f1(matrix) == pytest.approx((0.4 + 2 / 3 + 0) / 3)


@pytest.mark.task_5_4
def test_network_is_good_enough() -> None:
    model, chosen = training.network(), training.settings()
    weights = sum(values.size for values in model.state_dict().values())
    assert weights <= 30_000, f"{weights} weights are more than 30,000"
    assert chosen["epochs"] <= 8
    clothes = data.load("fashion-mnist-sample", limit_train=1500, limit_test=500)
    batches = data.Batches(
        clothes.train,
        chosen["batch_size"],
        mean=clothes.mean,
        std=clothes.std,
        seed=0,
        backend=model.backend,
    )
    trainer = Trainer(model, optim.Adam(lr=chosen["rate"]))
    for epoch in range(chosen["epochs"]):
        for x, y in batches.epoch(epoch):
            trainer.step(x, y)
    unseen = data.normalize(clothes.test.x, clothes.mean, clothes.std)
    right = (model.predict(unseen).argmax(axis=1) == clothes.test.y).mean()
    assert right > 0.77, f"{right:.1%} of the unseen pictures are right"
