"""The first steps of scripts/lockstep.py: on every backend, in float64, what torch computes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minicnn.backends import Backend
from minicnn.torch_reference import to_torch
from scripts import lockstep

STEPS = {"lenet5": 8, "resnet20": 4}


@pytest.fixture(params=lockstep.NETS, scope="module")
def result(request: pytest.FixtureRequest, backend: Backend) -> dict[str, Any]:
    """The figures of a short run of one net, as lockstep.json has them."""
    name = request.param
    net = lockstep.NETS[name]._replace(steps=STEPS[name])
    curves = lockstep.run(name, net, "float64", {backend.name: backend})
    return {name: {"float64": lockstep.summary(curves)}}


def test_every_step_in_float64_is_within_the_bound(result: dict[str, Any], backend: Backend) -> None:
    ((name, found),) = result.items()
    figures = found["float64"]["sides"][backend.name]
    assert figures["steps"] == STEPS[name]
    assert lockstep.beyond_bound(result) == []
    assert figures["worst weights"] < 100 * found["float64"]["sides"]["control"]["worst weights"]


def test_a_wrong_gradient_is_beyond_the_bound(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of one bias's gradient off by a ten-millionth of its value, in every step."""
    wrong = object.__new__(type(backend))  # a copy is the same one
    vars(wrong).update(vars(backend))
    right = backend.dense_backward

    def dense_backward(*arrays: Any, **options: Any) -> Any:
        dx, dw, db = right(*arrays, **options)
        db[0] *= 1 + 1e-7
        return dx, dw, db

    monkeypatch.setattr(wrong, "dense_backward", dense_backward, raising=False)
    net = lockstep.NETS["lenet5"]._replace(steps=3)
    curves = lockstep.run("lenet5", net, "float64", {backend.name: wrong})
    problems = lockstep.beyond_bound({"lenet5": {"float64": lockstep.summary(curves)}})
    assert problems[0].startswith(
        f"lenet5, {backend.name}, float64: expected at most 1e-13 from torch, got "
    )


def test_in_bfloat16_a_backend_is_as_near_as_autocast(backend: Backend) -> None:
    net = lockstep.NETS["lenet5"]._replace(steps=6)
    sides = lockstep.summary(lockstep.run("lenet5", net, "bfloat16", {backend.name: backend}))["sides"]
    ours, theirs = (sides[side]["worst weights"] for side in (backend.name, "torch"))
    assert 1e-5 < ours < 1.5 * theirs


def test_choices_of_relu_and_max_pool_are_counted() -> None:
    module = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    other = copy.deepcopy(module)
    kinks = [lockstep.Kinks(m) for m in (module, other)]
    module(torch.tensor([[[[1.0, 2.0], [3.0, -1.0]]]]))
    other(torch.tensor([[[[1.0, 4.0], [3.0, 1.0]]]]))
    assert kinks[0].differing(kinks[1]) == 2
    other(torch.tensor([[[[1.0, 2.0], [3.0, -1.0]]]]))
    assert kinks[0].differing(kinks[1]) == 0


def test_all_sides_begin_with_the_same_weights() -> None:
    dataset, _ = lockstep.batches(lockstep.NETS["lenet5"])
    narrow, wide = (lockstep.make_model("lenet5", dataset, "numpy", d) for d in ("float32", "float64"))
    assert wide.dtype == "float64"
    assert lockstep.distance(narrow.state_dict(), wide.state_dict()) == 0
    moved = lockstep.nudged(to_torch(wide), "float32").state_dict()
    apart = lockstep.distance({name: a.numpy() for name, a in moved.items()}, wide.state_dict())
    assert 0 < apart < np.finfo("float32").eps / 2
