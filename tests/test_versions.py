"""Torch learns what the compiled backends change in place, so its autograd refuses to go on with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import BACKENDS

from minicnn.backends import get_backend

COMPILED = [name for name in BACKENDS if name != "numpy"]
if not COMPILED:
    pytest.skip("no compiled backend is under test", allow_module_level=True)

POOL = {"pool": ((2, 2), (2, 2), (0, 0), (1, 1), False)}
NORM = {"training": True, "momentum": 0.1, "eps": 1e-5}
ADAM = {
    "lr": 0.1,
    "beta1": 0.9,
    "beta2": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "decoupled": False,
    "step": 1,
}
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
RMSPROP = {"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.9}
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd_step": ("changed kept changed", SGD),
    "adam_step": ("changed kept changed changed", ADAM),
    "rmsprop_step": ("changed kept changed changed", RMSPROP),
    "ema_update": ("changed kept", {"decay": 0.5}),
    "scale": ("changed", {"factor": 2.0}),
    "global_norm": ("kept", {}),
}
"""Operation -> what becomes of each list's arrays, and the other arguments."""

NORMS: dict[str, dict[str, Any]] = {
    "batch_norm2d": {},
    "batch_norm2d_relu": {},
    "batch_norm2d_add_relu": {},
    "batch_norm2d_relu_max_pool2d": POOL,
}


def saved_by_autograd(tensor: torch.Tensor) -> torch.Tensor:
    """A result whose backward pass reads the tensor."""
    return (torch.ones_like(tensor, requires_grad=True) * tensor).sum()


def assert_changed(tensor: torch.Tensor, version: int, result: torch.Tensor, changed: bool) -> None:
    assert (tensor._version > version) == changed
    if changed:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.backward()
    else:
        result.backward()


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("layout", ["dense", "strided"])
@pytest.mark.parametrize("name", STEPS)
def test_steps_tell_what_they_change(name: str, layout: str, backend: str) -> None:
    fates, options = STEPS[name]
    step = 2 if layout == "strided" else 1
    device = get_backend(backend).asarray(torch.ones(1).numpy()).device
    lists = [[torch.ones(8, device=device)[::step]] for _ in fates.split()]
    versions = [arrays[0]._version for arrays in lists]
    results = [saved_by_autograd(arrays[0]) for arrays in lists]
    getattr(get_backend(backend), name)(*lists, **options)
    for fate, arrays, version, result in zip(fates.split(), lists, versions, results, strict=True):
        assert_changed(arrays[0], version, result, fate == "changed")


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_batch_norms_tell_that_they_change_the_running_statistics(
    name: str, training: bool, backend: str
) -> None:
    table = get_backend(backend)
    device = table.asarray(torch.ones(1).numpy()).device
    x = torch.randn(2, 3, 4, 4, device=device)
    weight, bias, mean, var = (torch.ones(3, device=device) for _ in range(4))
    versions, results = [a._version for a in (mean, var)], [saved_by_autograd(a) for a in (mean, var)]
    inputs = (x, x) if "add" in name else (x,)
    options = {**NORM, **NORMS[name], "training": training}
    getattr(table, f"{name}_forward")(*inputs, weight, bias, mean, var, **options)
    assert (x._version, weight._version, bias._version) == (0, 0, 0)
    for a, version, result in zip((mean, var), versions, results, strict=True):
        assert_changed(a, version, result, training)


@pytest.mark.parametrize("backend", COMPILED)
def test_tensors_of_inference_mode_have_no_version(backend: str) -> None:
    table = get_backend(backend)
    with torch.inference_mode():
        a = table.asarray(torch.ones(3).numpy()) + 0
    table.scale([a], 2.0)
    assert a.sum().item() == 6
