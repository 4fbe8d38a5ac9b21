"""Schedules equal torch's at every step, and are pure functions of the step."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from minicnn import schedules


def torch_rates(
    make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], lr: float, n: int
) -> list:
    """The learning rate that torch's optimizer has at each of n steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns of the step after the last
            if len(rates) < n:
                scheduler.step()
    return rates


@pytest.mark.parametrize("total", [1, 2, 10, 97])
@pytest.mark.parametrize("lr", [0.1, 3.0])
def test_cosine_equals_torch(lr: float, total: int) -> None:
    rate = schedules.create("cosine", lr=lr, total_steps=total)
    theirs = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, total), lr, total)
    np.testing.assert_allclose([rate(k) for k in range(total)], theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("every", "gamma"), [(1, 0.9), (7, 0.1), (100, 0.5)])
def test_step_equals_torch(every: int, gamma: float) -> None:
    rate = schedules.create("step", lr=0.2, total_steps=30, every=every, gamma=gamma)
    theirs = torch_rates(lambda o: lr_scheduler.StepLR(o, every, gamma), 0.2, 30)
    np.testing.assert_allclose([rate(k) for k in range(30)], theirs, rtol=1e-12)


@pytest.mark.parametrize("total", [5, 10, 100, 101])
@pytest.mark.parametrize("warmup", [None, 0.15, 0.25, 0.5])
def test_onecycle_equals_torch(total: int, warmup: float | None) -> None:
    rate = schedules.create("onecycle", lr=0.3, total_steps=total, warmup=warmup)
    share = 0.3 if warmup is None else warmup
    theirs = torch_rates(
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=0.3, total_steps=total, pct_start=share, cycle_momentum=False
        ),
        0.3,
        total,
    )
    np.testing.assert_allclose([rate(k) for k in range(total)], theirs, rtol=1e-10, atol=1e-14)


def test_constant() -> None:
    rate = schedules.create("constant", lr=0.5, total_steps=9)
    assert {rate(k) for k in range(9)} == {0.5}


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_warmup_rises_and_then_follows_the_schedule(name: str) -> None:
    plain = schedules.create(name, lr=0.5, total_steps=40)
    warm = schedules.create(name, lr=0.5, total_steps=40, warmup=0.25)
    rising = [warm(k) for k in range(10)]
    assert 0 < rising[0] < rising[-1] < 0.5
    assert rising == sorted(rising)
    assert [warm(k) for k in range(10, 40)] == [plain(k) for k in range(10, 40)]


@pytest.mark.parametrize("name", schedules.NAMES)
def test_pure_function_of_the_step(name: str) -> None:
    one, two = (schedules.create(name, lr=0.1, total_steps=20) for _ in range(2))
    forwards = [one(k) for k in range(20)]
    assert [two(k) for k in reversed(range(20))] == forwards[::-1]
    assert all(0 <= rate <= 0.1 for rate in forwards)


@pytest.mark.parametrize("name", schedules.NAMES)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_very_short_runs_have_a_rate(name: str, total: int) -> None:
    rate = schedules.create(name, lr=0.1, total_steps=total)
    assert all(0 <= rate(k) <= 0.1 for k in range(total))
    assert rate(0) > 0


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="expected one of constant, step, cosine, onecycle, got linear"):
        schedules.create("linear", lr=0.1, total_steps=3)
    with pytest.raises(ValueError, match="total_steps: expected at least 1, got 0"):
        schedules.create("cosine", lr=0.1, total_steps=0)
    with pytest.raises(ValueError, match=r"warmup: expected a share from 0 to below 1, got 1\.5"):
        schedules.create("cosine", lr=0.1, total_steps=10, warmup=1.5)
