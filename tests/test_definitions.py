"""The plain loops that the site shows as definitions do what the operations do, on the table of cases."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minicnn.backends import get_backend
from minicnn.testing import CASES, Case, definitions
from minicnn.testing.batches import random_table
from minicnn.testing.checks import drawn
from minicnn.testing.operations import OPERATIONS
from minicnn.testing.oracle import run_backend
from minicnn.testing.tolerance import assert_close

pytest.importorskip("torch", reason="cases are drawn with torch")

PRODUCTS = 30_000
"""A case with more pairs of a value and a weight would take long."""

AS_BACKEND: Any = SimpleNamespace(asarray=np.array, to_numpy=np.asarray, **vars(definitions))


def is_defined(case: Case) -> bool:
    """The definitions leave out the loss's options, padding by sides, empty batches, missing statistics."""
    inputs = {name: a for name, a in drawn(case, "float64").inputs.items() if a is not None}
    products = math.prod(a.size for name, a in inputs.items() if name in ("x", "weight"))
    usual = {
        "softmax_cross_entropy": case.attrs.get("reduction") == "mean"
        and not case.attrs.get("label_smoothing")
        and "class_weight" not in inputs
        and inputs["labels"].ndim == 1
        and inputs["labels"].min(initial=0) >= 0,
        "batch_norm2d": "running_mean" in inputs,
    }
    full = all(a.size for a in inputs.values())
    both_sides = len(case.attrs.get("padding", (0, 0))) == 2
    defined = hasattr(definitions, f"{case.op}_forward") or case.op == "make_batch"
    return defined and full and both_sides and products <= PRODUCTS and usual.get(case.op, True)


DEFINED = [case for case in CASES if is_defined(case)]


@pytest.mark.parametrize("case", DEFINED, ids=str)
def test_definition(case: Case) -> None:
    problem = drawn(case, "float32" if case.op == "cast" else "float64")
    expected = run_backend(get_backend("numpy"), problem)
    actual = run_backend(AS_BACKEND, problem)
    pairs = [(name, a, expected.outputs[name]) for name, a in actual.outputs.items()]
    pairs += [(f"d{name}", a, expected.gradients[name]) for name, a in actual.gradients.items()]
    for name, a, wanted in pairs:
        if name != "dbias" or problem.inputs["bias"] is not None:
            assert_close(a, wanted, problem.tolerance, name)


def test_each_operation_of_one_step_has_cases() -> None:
    named = {name.removesuffix("_forward") for name in vars(definitions) if name.endswith("_forward")}
    named.add("make_batch")
    assert named == {case.op for case in DEFINED}
    assert named <= OPERATIONS.keys()


@pytest.mark.parametrize("channels", [1, 3])
def test_make_batch_with_all_fields_at_once(channels: int) -> None:
    """The cases have no saturation, and no reach inside the image."""
    rng = np.random.default_rng(channels)
    images = rng.integers(0, 256, (4, channels, 7, 9), dtype=np.uint8)
    rows, table = rng.integers(0, 4, 24), random_table(rng, 24, (7, 9))
    table["affine"][:2] /= 1e38  # without places that only float32 cannot hold
    mean, std = rng.uniform(0.2, 0.7, (2, channels))
    wanted = get_backend("numpy").make_batch(images, rows, table, mean, std, dtype="float64")
    plain = definitions.make_batch(images, rows, table, mean, std, dtype="float64")
    np.testing.assert_allclose(plain, wanted, rtol=0, atol=2e-5)  # pixels are float32 in the operation


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("flag", [False, True])
def test_optimizers(momentum: float, flag: bool) -> None:
    rng = np.random.default_rng(0)
    backend = get_backend("numpy")
    w, g, m = (rng.normal(size=(1, 2, 3)) for _ in range(3))
    s = rng.uniform(0.1, 1, (1, 2, 3))
    sgd = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.2, "nesterov": flag and momentum > 0}
    adam = {"lr": 0.1, "beta1": momentum, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.2, "decoupled": flag}
    for name, options, state in (("sgd_step", sgd, [m]), ("adam_step", {**adam, "step": 3}, [m, s])):
        ours, plain = ([a.copy() for a in (w, g, *state)] for _ in range(2))
        getattr(backend, name)(*([a] for a in ours), **options)
        getattr(definitions, name)(*([a] for a in plain), **options)
        np.testing.assert_allclose(plain[0], ours[0], rtol=1e-12, err_msg=name)
        assert (plain[0] != w).all()
    assert definitions.global_norm([w, g]) == pytest.approx(backend.global_norm([w, g]), rel=1e-12)


def test_fold_batch_norm2d() -> None:
    rng = np.random.default_rng(0)
    weight, var = rng.normal(size=(4, 2, 3, 3)), rng.uniform(0.5, 2, 4)
    bias, gamma, beta, mean = rng.normal(size=(4, 4))
    ours = get_backend("numpy").fold_batch_norm2d(weight, bias, gamma, beta, mean, var, eps=1e-5)
    plain = definitions.fold_batch_norm2d(weight, bias, gamma, beta, mean, var, eps=1e-5)
    for a, b in zip(plain, ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
