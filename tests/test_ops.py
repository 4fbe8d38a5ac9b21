"""Every case of the table on every backend and dtype, against torch's autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from minicnn.backends import Backend
from minicnn.testing import (
    CASES,
    OPERATIONS,
    Case,
    Problem,
    Results,
    assert_close,
    draw,
    run_backend,
    run_torch,
)
from minicnn.testing.operations import NEED, RUNNING
from minicnn.testing.oracle import to_backend

pytestmark = pytest.mark.filterwarnings("error")

FIRST_OF_EACH_OP = list({case.op: case for case in reversed(CASES)}.values())


@cache
def problem_and_oracle(case: Case, dtype: np.dtype) -> tuple[Problem, Results]:
    problem = draw(case, dtype)
    return problem, run_torch(problem)


def compare(actual: Results, expected: Results, allowed: float, dtype: np.dtype) -> None:
    assert actual.outputs.keys() == expected.outputs.keys()
    for name, a in actual.outputs.items():
        assert a is None or a.dtype == dtype, name
        assert_close(a, expected.outputs[name], allowed)
    for name, a in actual.gradients.items():
        assert a is None or a.dtype == dtype, name
        assert_close(a, expected.gradients.get(name), allowed)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward_equal_torch(backend: Backend, case: Case, dtype: np.dtype) -> None:
    problem, expected = problem_and_oracle(case, dtype)
    actual = run_backend(backend, problem)
    if (
        "bias" in actual.gradients and case.inputs["bias"] is None
    ):  # torch gives no gradient of what is not there
        actual.gradients.pop("bias")
    compare(actual, expected, problem.tolerance, dtype)


def test_table_covers_every_operation() -> None:
    in_contract = {name.removesuffix("_forward") for name in dir(Backend) if name.endswith("_forward")}
    without_gradients = {"fold_batch_norm2d"}
    assert {case.op for case in CASES} == in_contract | without_gradients == OPERATIONS.keys()
    assert len({str(case) for case in CASES}) == len(CASES)


def test_tolerance_in_float64_is_within_1e_10() -> None:
    assert max(problem_and_oracle(case, np.dtype("float64"))[0].tolerance for case in CASES) < 1e-10


@pytest.mark.parametrize("case", [c for c in CASES if OPERATIONS[c.op].optional_gradients], ids=str)
def test_gradient_not_needed_is_none_and_others_stay(backend: Backend, case: Case) -> None:
    problem, _ = problem_and_oracle(case, np.dtype("float32"))
    everything = run_backend(backend, problem).gradients
    for off in OPERATIONS[case.op].optional_gradients:
        some = run_backend(backend, problem, **{NEED[off]: False}).gradients
        assert some.pop(off) is None
        for name, a in some.items():
            np.testing.assert_array_equal(a, everything[name], err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_on_a_second_run(backend: Backend, case: Case) -> None:
    problem, _ = problem_and_oracle(case, np.dtype("float32"))
    assert bits(run_backend(backend, problem)) == bits(run_backend(backend, problem))


def bits(results: Results) -> list[bytes | None]:
    arrays = [*results.outputs.values(), *results.gradients.values()]
    return [None if a is None else a.tobytes() for a in arrays]


def test_same_bits_for_any_number_of_threads(backend: Backend, threads: Callable[[int], None]) -> None:
    if backend.name == "numpy":
        pytest.skip("NumPy's BLAS orders its sums by the number of threads")
    problems = [problem_and_oracle(case, np.dtype("float32"))[0] for case in CASES]
    threads(1)
    expected = [bits(run_backend(backend, problem)) for problem in problems]
    for n in (2, 3):
        threads(n)
        for problem, first in zip(problems, expected, strict=True):
            assert bits(run_backend(backend, problem)) == first, f"{problem.case} with {n} threads"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_argument_is_changed(backend: Backend, case: Case, dtype: np.dtype) -> None:
    problem, _ = problem_and_oracle(case, dtype)
    arrays = to_backend(backend, problem.inputs)
    before = {name: host_copy(backend, a) for name, a in arrays.items()}
    outputs, backward = OPERATIONS[case.op].run(backend, arrays, case.attrs)
    outputs_before = {name: host_copy(backend, a) for name, a in outputs.items()}
    dy = backend.asarray(problem.dy.copy())
    backward(dy)
    np.testing.assert_array_equal(backend.to_numpy(dy), problem.dy)
    for name, a in outputs.items():
        np.testing.assert_array_equal(host_copy(backend, a), outputs_before[name], err_msg=name)
    for name in arrays.keys() - set(RUNNING):
        np.testing.assert_array_equal(host_copy(backend, arrays[name]), before[name], err_msg=name)


def host_copy(backend: Backend, a: Any) -> np.ndarray | None:
    return None if a is None else backend.to_numpy(a).copy()


# ---- memory layouts --------------------------------------------------------------------------------


def negative_strides(a: np.ndarray) -> np.ndarray:
    backwards = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[backwards])[backwards]


def every_second(a: np.ndarray) -> np.ndarray:
    wide = np.zeros([2 * size for size in a.shape], a.dtype)
    view = wide[(..., *(slice(None, None, 2),) * a.ndim)]
    view[...] = a
    return view


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def foreign_byte_order(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder("S"))


LAYOUTS = [negative_strides, every_second, channels_last, np.asfortranarray, read_only, foreign_byte_order]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", FIRST_OF_EACH_OP, ids=str)
def test_any_memory_layout(
    backend: Backend, case: Case, layout: Callable[[np.ndarray], np.ndarray], dtype: np.dtype
) -> None:
    problem, expected = problem_and_oracle(case, dtype)
    inputs = {name: None if a is None else layout(a) for name, a in problem.inputs.items()}
    laid_out = problem._replace(inputs=inputs, dy=layout(problem.dy))
    compare(run_backend(backend, laid_out), expected, problem.tolerance, dtype)


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
