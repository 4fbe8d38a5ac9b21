"""The rules that every backend keeps: kinks, ties, NaN and infinities, empty batches, state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minicnn.backends import Backend
from minicnn.testing import CASES, Case, Problem, draw, run_backend, run_torch

POOL = {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "ceil_mode": False}


def pool_gradient(backend: Backend, x: np.ndarray, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pool's output and dx for dy = 1, 2, 3, ...: which window gave what to which cell."""
    attrs = POOL | changes
    y, argmax = backend.max_pool2d_forward(backend.asarray(x), **attrs)
    dy = np.arange(1, 1 + np.prod(y.shape), dtype=x.dtype).reshape(tuple(y.shape))
    dx = backend.max_pool2d_backward(backend.asarray(dy), argmax, input_shape=x.shape, **attrs)
    return backend.to_numpy(y), backend.to_numpy(dx)


# ---- kinks and ties --------------------------------------------------------------------------------


def test_relu_has_no_slope_at_zero(backend: Backend, dtype: np.dtype) -> None:
    tiny = np.finfo(dtype).tiny
    y = np.array([0.0, -0.0, tiny, -tiny, 2.0, -2.0], dtype)
    dx = backend.relu_backward(backend.asarray(np.full(6, 3, dtype)), backend.asarray(y))
    np.testing.assert_array_equal(backend.to_numpy(dx), [0, 0, 3, 0, 3, 0])


def test_relu_of_negative_zero_is_zero(backend: Backend, dtype: np.dtype) -> None:
    y = backend.relu_forward(backend.asarray(np.array([-0.0, 0.0], dtype)))
    np.testing.assert_array_equal(backend.to_numpy(y), [0, 0])


def test_relu_keeps_nan_and_passes_its_gradient(backend: Backend, dtype: np.dtype) -> None:
    x = backend.asarray(np.array([np.nan, np.inf, -np.inf], dtype))
    y = backend.relu_forward(x)
    np.testing.assert_array_equal(backend.to_numpy(y), [np.nan, np.inf, 0])
    dx = backend.relu_backward(backend.asarray(np.full(3, 2, dtype)), y)
    np.testing.assert_array_equal(backend.to_numpy(dx), [2, 2, 0])


def test_pool_tie_goes_to_the_first_cell_in_row_major_order(backend: Backend, dtype: np.dtype) -> None:
    y, dx = pool_gradient(backend, np.full((1, 1, 4, 4), 7, dtype), kernel_size=(2, 2), padding=(0, 0))
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), 7))
    np.testing.assert_array_equal(dx[0, 0], [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]])


def test_negative_and_positive_zero_tie(backend: Backend, dtype: np.dtype) -> None:
    x = np.array([[[[-0.0, 0.0], [0.0, -0.0]]]], dtype)
    _, dx = pool_gradient(backend, x, kernel_size=(2, 2), padding=(0, 0))
    np.testing.assert_array_equal(dx[0, 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("value", [-5.0, -np.inf], ids=["negative", "minus-infinity"])
def test_padding_never_wins(backend: Backend, dtype: np.dtype, value: float) -> None:
    y, dx = pool_gradient(backend, np.full((1, 1, 4, 5), value, dtype))
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 3), value))
    expected = np.zeros((4, 5))
    for window, cell in enumerate([(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 3)], 1):
        expected[cell] += window
    np.testing.assert_array_equal(dx[0, 0], expected)


def test_last_of_several_nan_wins(backend: Backend, dtype: np.dtype) -> None:
    x = np.array([[[[1, np.nan, 5], [np.inf, 2, np.nan], [9, 8, 7]]]], dtype)
    y, dx = pool_gradient(backend, x, padding=(0, 0))
    assert np.isnan(y).all()
    np.testing.assert_array_equal(dx[0, 0], [[0, 0, 0], [0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", [c for c in CASES if c.op == "max_pool2d" and c.exact], ids=str)
def test_pool_of_ties_nan_and_infinities_equals_torch(
    backend: Backend, case: Case, seed: int, dtype: np.dtype
) -> None:
    problem = draw(case, dtype)
    x = problem.inputs["x"].copy()
    rng = np.random.default_rng(seed)
    x[rng.random(x.shape) < 0.15] = np.nan
    x[rng.random(x.shape) < 0.1] = np.inf
    x[rng.random(x.shape) < 0.4] = -np.inf
    changed = problem._replace(inputs={"x": x})
    actual, expected = run_backend(backend, changed), run_torch(changed)
    np.testing.assert_array_equal(actual.outputs["y"], expected.outputs["y"])
    np.testing.assert_array_equal(actual.gradients["x"], expected.gradients["x"])


# ---- NaN and infinities ------------------------------------------------------------------------------

FLOATING = [c for c in CASES if not c.exact and "batch0" not in c.id and c.op != "softmax_cross_entropy"]


POISONED = [
    pytest.param(case, name, id=f"{case}-{name}")
    for case in FLOATING
    for name in ("x", "weight", "bias", "a", "x0", "residual")
    if case.inputs.get(name) is not None
]


def poisoned(problem: Problem, name: str) -> Problem:
    """NaN, inf and -inf in random places of one input.

    The scale of a batch norm gets NaN only: x*inf - mean*inf is NaN or inf as one arranges the terms.
    """
    a = problem.inputs[name].copy()
    rng = np.random.default_rng(len(name) + a.size)
    scale = name == "weight" and problem.case.op.startswith("batch_norm2d")
    values = [np.nan] if scale else [np.nan, np.inf, -np.inf][: a.size]
    a.reshape(-1)[rng.choice(a.size, size=len(values), replace=False)] = values
    return problem._replace(inputs={**problem.inputs, name: a})


def assert_same_places(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_array_equal(actual == np.inf, expected == np.inf)
    np.testing.assert_array_equal(actual == -np.inf, expected == -np.inf)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(("case", "name"), POISONED)
def test_non_finite_values_come_out_where_torch_has_them(
    backend: Backend, case: Case, name: str, dtype: np.dtype
) -> None:
    problem = poisoned(draw(case, dtype), name)
    actual, expected = run_backend(backend, problem), run_torch(problem)
    first = next(iter(expected.outputs))
    assert_same_places(actual.outputs[first], expected.outputs[first])


LINEAR = [c for c in FLOATING if c.op in ("conv2d", "dense")]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", ["x", "weight", "dy"])
@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_gradient_times_non_finite_value_stays_non_finite(
    backend: Backend, case: Case, name: str, dtype: np.dtype
) -> None:
    """Every dy is non-zero here, so nothing may be skipped.

    More may be non-finite than in torch: dx summed over a border of zeros meets 0 * inf there.
    """
    problem = draw(case, dtype)
    problem = problem._replace(dy=np.where(np.abs(problem.dy) < 0.1, 0.1, problem.dy).astype(dtype))
    if name == "dy":
        dy = problem.dy.copy()
        dy.reshape(-1)[[0, -1]] = [np.nan, np.inf]
        problem = problem._replace(dy=dy)
    else:
        problem = poisoned(problem, name)
    actual, expected = run_backend(backend, problem), run_torch(problem)
    for key, gradient in expected.gradients.items():
        kept = ~np.isfinite(actual.gradients[key]) | np.isfinite(gradient)
        assert kept.all(), f"d{key}: {np.argwhere(~kept)[:5]} became finite"


LOGITS = {
    "nan": [[0, np.nan, 1], [1, 2, 3]],
    "inf-beside-target": [[0, 1, np.inf], [1, 2, 3]],
    "inf-at-target": [[np.inf, 1, 0], [1, 2, 3]],
    "minus-inf-beside-target": [[0, -np.inf, 1], [1, 2, 3]],
    "minus-inf-at-target": [[-np.inf, 0, 1], [1, 2, 3]],
    "all-minus-inf": [[-np.inf] * 3, [1, 2, 3]],
}


@pytest.mark.parametrize("kind", ["labels", "smoothing", "probabilities"])
@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS.keys())
def test_loss_of_non_finite_logits_equals_torch(
    backend: Backend, logits: list[list[float]], kind: str, dtype: np.dtype
) -> None:
    labels = (
        np.array([[0.5, 0.25, 0.25], [0, 0, 1]], dtype) if kind == "probabilities" else np.array([0, 2])
    )
    case = Case(
        "softmax_cross_entropy", "rule", {}, {"label_smoothing": 0.1 if kind == "smoothing" else 0.0}
    )
    inputs = {"logits": np.array(logits, dtype), "labels": labels, "class_weight": None}
    problem = Problem(case, inputs, np.ones((), dtype), 1e-6)
    actual, expected = run_backend(backend, problem), run_torch(problem)
    for name, a in actual.outputs.items():
        np.testing.assert_allclose(a, expected.outputs[name], rtol=1e-6, err_msg=name)


# ---- empty batches and state -------------------------------------------------------------------------


def test_mean_loss_of_no_image_is_nan(backend: Backend, dtype: np.dtype) -> None:
    logits = backend.asarray(np.zeros((0, 4), dtype))
    labels = backend.asarray(np.zeros(0, np.int64))
    loss, probs = backend.softmax_cross_entropy_forward(logits, labels)
    assert np.isnan(backend.to_numpy(loss))
    dlogits = backend.softmax_cross_entropy_backward(probs, labels)
    assert backend.to_numpy(dlogits).shape == (0, 4)


@pytest.mark.parametrize("case", [c for c in CASES if "batch0" in c.id], ids=str)
def test_parameters_of_no_image_have_zero_gradients(backend: Backend, case: Case, dtype: np.dtype) -> None:
    gradients = run_backend(backend, draw(case, dtype)).gradients
    for name, a in gradients.items():
        np.testing.assert_array_equal(a, np.zeros_like(a), err_msg=name)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_batch_norm_of_no_image_in_training(backend: Backend, dtype: np.dtype) -> None:
    problem = draw(next(c for c in CASES if str(c) == "batch_norm2d-evaluation-batch0"), dtype)
    case = Case("batch_norm2d", "rule", {}, {**problem.case.attrs, "training": True})
    problem = problem._replace(case=case)
    actual, expected = run_backend(backend, problem), run_torch(problem)
    for name in ("y", "running_mean", "running_var"):
        np.testing.assert_array_equal(actual.outputs[name], expected.outputs[name], err_msg=name)
    for name, a in actual.gradients.items():
        np.testing.assert_array_equal(a, expected.gradients[name], err_msg=name)


def test_batch_norm_evaluation_leaves_the_running_statistics(backend: Backend, dtype: np.dtype) -> None:
    problem = draw(next(c for c in CASES if str(c) == "batch_norm2d-evaluation"), dtype)
    outputs = run_backend(backend, problem).outputs
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(outputs[name], problem.inputs[name])


def test_loss_is_a_0d_array_of_the_backend(backend: Backend, dtype: np.dtype) -> None:
    logits = backend.asarray(np.zeros((2, 4), dtype))
    loss, _ = backend.softmax_cross_entropy_forward(logits, backend.asarray(np.array([0, 1])))
    assert type(loss) is type(logits)
    assert tuple(loss.shape) == ()
    np.testing.assert_allclose(backend.to_numpy(loss), np.log(4), rtol=1e-6)


def test_argmax_is_left_out_when_not_needed(backend: Backend, dtype: np.dtype) -> None:
    x = backend.asarray(np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(dtype))
    y, argmax = backend.max_pool2d_forward(x, **POOL, need_argmax=False)
    assert argmax is None
    np.testing.assert_array_equal(
        backend.to_numpy(y), backend.to_numpy(backend.max_pool2d_forward(x, **POOL)[0])
    )


def test_argmax_takes_a_byte_where_the_window_is_small(backend: Backend, dtype: np.dtype) -> None:
    x = backend.asarray(np.zeros((1, 1, 20, 20), dtype))
    assert backend.to_numpy(backend.max_pool2d_forward(x, **POOL)[1]).itemsize == 1


def test_forward_leaves_no_trace_in_the_backend(backend: Backend) -> None:
    """The same bits after other work of other shapes: nothing is kept between calls."""
    first, other = (draw(c, np.dtype("float32")) for c in CASES[:2])
    before = run_backend(backend, first)
    run_backend(backend, other)
    after = run_backend(backend, first)
    for name, a in before.gradients.items():
        assert a.tobytes() == after.gradients[name].tobytes(), name
