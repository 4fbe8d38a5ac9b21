"""Tests of assignment 4."""

from __future__ import annotations

import group_norm
import numpy as np
import pytest

from minicnn import Sequential, Trainer, optim
from minicnn.layers import Conv2d, Dense, Flatten, ReLU
from minicnn.testing import assert_close, assert_slope

EPS = 1e-5


def drawn() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (2, 6, 3, 4))
    return {"x": x, "weight": rng.standard_normal(6), "bias": rng.standard_normal(6)}


@pytest.mark.task_4_1
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_forward(groups: int) -> None:
    point = drawn()
    x, weight, bias = point.values()
    expected = np.empty_like(x)
    size = 6 // groups
    for n in range(2):
        for g in range(groups):
            channels = slice(g * size, (g + 1) * size)
            values = x[n, channels]
            expected[n, channels] = (values - values.mean()) / np.sqrt(values.var() + EPS)
    expected = expected * weight[:, None, None] + bias[:, None, None]
    assert_close(group_norm.forward(x, weight, bias, groups, EPS)[0], expected, 1e-12, "y")


@pytest.mark.task_4_1
def test_float32_stays_float32() -> None:
    point = {name: value.astype(np.float32) for name, value in drawn().items()}
    assert group_norm.forward(*point.values(), 2, EPS)[0].dtype == np.float32


@pytest.mark.task_4_2
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_backward(groups: int) -> None:
    point, rng = drawn(), np.random.default_rng(1)
    dy = rng.standard_normal(point["x"].shape)
    _, saved = group_norm.forward(*point.values(), groups, EPS)
    gradients = dict(zip(point, group_norm.backward(dy, saved, groups), strict=True))
    assert {name: g.shape for name, g in gradients.items()} == {name: p.shape for name, p in point.items()}

    def loss(p: dict[str, np.ndarray]) -> float:
        return float((group_norm.forward(p["x"], p["weight"], p["bias"], groups, EPS)[0] * dy).sum())

    for name in point:  # one at a time, so that the message names the one that is wrong
        others = {other: value for other, value in point.items() if other != name}
        assert_slope(
            lambda p, rest=others: loss({**rest, **p}), {name: point[name]}, {name: gradients[name]}, rng
        )


def network() -> Sequential:
    layers = (Conv2d(1, 8, 3), group_norm.GroupNorm(2, 8), ReLU(), Flatten(), Dense(8 * 36, 2))
    return Sequential(*layers, backend="numpy", seed=0)


@pytest.mark.task_4_3
def test_layer_has_its_parameters() -> None:
    state = network().state_dict()
    np.testing.assert_array_equal(state["1.weight"], np.ones(8))
    np.testing.assert_array_equal(state["1.bias"], np.zeros(8))


@pytest.mark.task_4_3
def test_layer_learns() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 64)
    x = rng.standard_normal((64, 1, 8, 8)).astype(np.float32)
    x[y == 1, :, :, :4] += 1.5
    model = network()
    trainer = Trainer(model, optim.Adam(lr=1e-2))
    losses = [trainer.step(x, y) for _ in range(20)]
    assert losses[-1] < 0.2 * losses[0]
    state = model.state_dict()
    assert (state["1.weight"] != 1).any(), "the weight did not move"
    assert (state["1.bias"] != 0).any(), "the bias did not move"


@pytest.mark.task_4_3
def test_images_do_not_depend_on_each_other() -> None:
    x = np.random.default_rng(3).standard_normal((5, 1, 8, 8)).astype(np.float32)
    model = network()
    assert_close(model.predict(x)[:1], model.predict(x[:1]), 1e-5, "logits of the first image")
