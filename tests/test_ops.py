"""Every case of the table on every backend and dtype, under every kind of check."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import BACKENDS

from minicnn.backends import Backend
from minicnn.testing import CASES, OPERATIONS, Check, case_checks
from minicnn.testing.checks import drawn, has_gradients
from minicnn.testing.layouts import LAYOUTS

CHECKS = [
    pytest.param(backend, check, id=f"{backend}-{check}")
    for backend in BACKENDS
    for check in case_checks(backend)
]


@pytest.mark.parametrize(("backend", "check"), CHECKS, indirect=["backend"])
def test_case(backend: Backend, check: Check) -> None:
    check.run(backend)


def test_table_covers_every_operation() -> None:
    in_contract = {name.removesuffix("_forward") for name in dir(Backend) if name.endswith("_forward")}
    without_gradients = {op for op in OPERATIONS if not has_gradients(op)}
    assert {case.op for case in CASES} == in_contract | without_gradients == OPERATIONS.keys()
    assert without_gradients == {"fold_batch_norm2d", "make_batch"}
    assert len({str(case) for case in CASES}) == len(CASES)


def test_tolerance_in_float64_is_within_1e_10() -> None:
    assert max(drawn(case, "float64").tolerance for case in CASES) < 1e-10


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "bool"])
def test_arrays_go_to_the_backend_and_come_back(
    backend: Backend, layout: Callable[[np.ndarray], np.ndarray], kind: str, rng: np.random.Generator
) -> None:
    a = rng.integers(0, 2, (2, 3, 4, 5)).astype(kind)
    back = backend.to_numpy(backend.asarray(layout(a)))
    assert back.dtype == a.dtype
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, a)
