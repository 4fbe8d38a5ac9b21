"""The rules that every backend keeps: kinks, ties, NaN and infinities, empty batches, state.

A rule is a function of a backend and a dtype that raises AssertionError if the backend breaks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends.base import Backend, Conv, Pool
from minicnn.testing.batches import has_the_bits_of_numpys_images_one_by_one
from minicnn.testing.cases import CASES, Case
from minicnn.testing.checks import DTYPES, Check, drawn
from minicnn.testing.oracle import Problem, draw, run_backend, run_torch
from minicnn.testing.tolerance import assert_close, assert_equal, require

POOL: dict[str, Any] = {
    "kernel_size": (3, 3),
    "stride": (2, 2),
    "padding": (1, 1),
    "dilation": (1, 1),
    "ceil_mode": False,
}
PAIRS: dict[str, Any] = {"kernel_size": (2, 2), "padding": (0, 0)}


class Rule(NamedTuple):
    """One rule: ``holds`` raises AssertionError on a backend that breaks it."""

    op: str
    name: str
    holds: Callable[[Backend, np.dtype], None]


def _case(name: str) -> Case:
    return next(case for case in CASES if str(case) == name)


# ---- ReLU ------------------------------------------------------------------------------------------


def relu_has_no_slope_at_zero(backend: Backend, dtype: np.dtype) -> None:
    tiny = np.finfo(dtype).tiny
    y = np.array([0.0, -0.0, tiny, -tiny, 2.0, -2.0], dtype)
    dx = backend.relu_backward(backend.asarray(np.full(6, 3, dtype)), backend.asarray(y))
    assert_equal(backend.to_numpy(dx), [0, 0, 3, 0, 3, 0], "dx")


def relu_of_negative_zero_is_zero(backend: Backend, dtype: np.dtype) -> None:
    y = backend.relu_forward(backend.asarray(np.array([-0.0, 0.0], dtype)))
    assert_equal(backend.to_numpy(y), [0, 0], "y")


def relu_keeps_nan_and_passes_its_gradient(backend: Backend, dtype: np.dtype) -> None:
    x = backend.asarray(np.array([np.nan, np.inf, -np.inf], dtype))
    y = backend.relu_forward(x)
    assert_equal(backend.to_numpy(y), [np.nan, np.inf, 0], "y")
    dx = backend.relu_backward(backend.asarray(np.full(3, 2, dtype)), y)
    assert_equal(backend.to_numpy(dx), [2, 2, 0], "dx")


def relu6_keeps_nan_and_has_no_slope_at_its_ends(backend: Backend, dtype: np.dtype) -> None:
    below = np.nextafter(dtype.type(6), dtype.type(0))
    x = np.array([np.nan, np.inf, -np.inf, 6, below, 0.0, -0.0, np.finfo(dtype).tiny], dtype)
    y = backend.relu6_forward(backend.asarray(x))
    assert_equal(backend.to_numpy(y), [np.nan, 6, 0, 6, below, 0, 0, np.finfo(dtype).tiny], "y")
    dx = backend.relu6_backward(backend.asarray(np.full(8, 2, dtype)), y)
    assert_equal(backend.to_numpy(dx), [2, 0, 0, 0, 2, 0, 0, 2], "dx")


def arrays_of_no_dimension_stay_arrays(op: str, backend: Backend, dtype: np.dtype) -> None:
    x = backend.asarray(np.array(2, dtype))
    keep = backend.asarray(np.array(True))
    results: dict[str, Callable[[], tuple[Any, ...]]] = {
        "relu": lambda: (backend.relu_forward(x), backend.relu_backward(x, x)),
        "relu6": lambda: (backend.relu6_forward(x), backend.relu6_backward(x, x)),
        "add": lambda: (backend.add_forward(x, x), *backend.add_backward(x)),
        "add_relu": lambda: (backend.add_relu_forward(x, x)[0], *backend.add_relu_backward(x, x)),
        "dropout": lambda: (
            backend.dropout_forward(x, keep, p=0.5), backend.dropout_backward(x, keep, p=0.5)
        ),
    }  # fmt: skip
    for result in results[op]():
        require(type(result) is type(x), f"expected a {type(x).__name__}, got a {type(result).__name__}")
        require(tuple(result.shape) == (), f"expected shape (), got {tuple(result.shape)}")


# ---- denormal numbers --------------------------------------------------------------------------------


def relu_keeps_denormals_and_compares_them(backend: Backend, dtype: np.dtype) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.tile(np.array([-tiny, tiny, -3 * tiny, 5 * tiny, 0, 1], dtype), 7)
    y = backend.relu_forward(backend.asarray(x))
    _assert_same_numbers(backend.to_numpy(y), np.maximum(x, 0), "y")
    dx = backend.relu_backward(backend.asarray(x[::-1].copy()), backend.asarray(x))
    _assert_same_numbers(backend.to_numpy(dx), np.where(x <= 0, 0, x[::-1]), "dx")


def max_pool_keeps_denormals_and_compares_them(backend: Backend, dtype: np.dtype) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = tiny * np.random.default_rng(0).permutation(6 * 8 * 18).reshape(1, 18, 6, 8).astype(dtype)
    attrs = {**POOL, **PAIRS}
    y, argmax = backend.max_pool2d_forward(backend.asarray(x), **attrs)
    windows = x.reshape(1, 18, 3, 2, 4, 2).swapaxes(3, 4).reshape(1, 18, 3, 4, 4)
    _assert_same_numbers(backend.to_numpy(y), windows.max(-1), "y")
    dx = backend.max_pool2d_backward(y, argmax, input_shape=x.shape, **attrs)
    wins = windows == windows.max(-1, keepdims=True)
    expected = (windows * wins).reshape(1, 18, 3, 4, 2, 2).swapaxes(3, 4).reshape(x.shape)
    _assert_same_numbers(backend.to_numpy(dx), expected, "dx")


def fused_selection_of_denormals_is_the_composition(op: str, backend: Backend, dtype: np.dtype) -> None:
    """A convolution whose inputs and weights are normal numbers, and whose results are denormal."""
    exponent = int(np.log2(np.finfo(dtype).smallest_subnormal))
    numbers = np.random.default_rng(0).integers(-9, 10, (2, 3, 6, 8)).astype(dtype)
    x = backend.asarray(np.ldexp(numbers, exponent // 2))
    weight = backend.asarray(np.ldexp(np.eye(3, dtype=dtype), exponent - exponent // 2).reshape(3, 3, 1, 1))
    attrs: dict[str, Any] = {"conv": Conv((1, 1), (0, 0), (1, 1), 1)}
    if op.endswith("max_pool2d"):
        attrs["pool"] = Pool((2, 2), (2, 2), (0, 0), (1, 1), False)
    results = []
    for owner in (type(backend), Backend):  # its own kernel, and the contract's composition
        forward, backward = getattr(owner, f"{op}_forward"), getattr(owner, f"{op}_backward")
        y, saved = _call(forward, backend)(x, weight, None, **attrs)
        dy = backend.asarray(np.ones(tuple(y.shape), dtype))
        gradients = _call(backward, backend)(dy, x, weight, saved, **attrs)
        results.append([backend.to_numpy(a) for a in (y, *gradients)])
    for own, composed, name in zip(*results, ("y", "dx", "dw", "db"), strict=True):
        _assert_same_numbers(own, composed, name)
    y = results[0][0]
    require("relu" not in op or not (y < 0).any(), "y: a negative number went through a ReLU")


def _call(function: Any, backend: Backend) -> Any:
    """The function of a class, bound to the backend."""
    return function.__get__(backend, type(backend))


def _assert_same_numbers(actual: np.ndarray, expected: Any, name: str) -> None:
    """Equal element by element; `assert_equal` would also take a denormal number for 0."""
    require(np.array_equal(actual, expected), f"{name}: expected {expected}, got {actual}")


# ---- max-pool --------------------------------------------------------------------------------------


def _pool_gradient(backend: Backend, x: np.ndarray, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pool's output, and dx for dy = 1, 2, 3, ..., which shows where each window's gradient went."""
    attrs = POOL | changes
    y, argmax = backend.max_pool2d_forward(backend.asarray(x), **attrs)
    dy = np.arange(1, 1 + np.prod(y.shape), dtype=x.dtype).reshape(tuple(y.shape))
    dx = backend.max_pool2d_backward(backend.asarray(dy), argmax, input_shape=x.shape, **attrs)
    return backend.to_numpy(y), backend.to_numpy(dx)


def tie_goes_to_the_first_cell_in_row_major_order(backend: Backend, dtype: np.dtype) -> None:
    y, dx = _pool_gradient(backend, np.full((1, 1, 4, 4), 7, dtype), **PAIRS)
    assert_equal(y, np.full((1, 1, 2, 2), 7), "y")
    assert_equal(dx[0, 0], [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]], "dx")


def negative_and_positive_zero_tie(backend: Backend, dtype: np.dtype) -> None:
    _, dx = _pool_gradient(backend, np.array([[[[-0.0, 0.0], [0.0, -0.0]]]], dtype), **PAIRS)
    assert_equal(dx[0, 0], [[1, 0], [0, 0]], "dx")


def padding_never_wins(backend: Backend, dtype: np.dtype) -> None:
    expected = np.zeros((4, 5))
    for window, cell in enumerate([(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 3)], 1):
        expected[cell] += window
    for value in (-5.0, -np.inf):
        y, dx = _pool_gradient(backend, np.full((1, 1, 4, 5), value, dtype))
        assert_equal(y, np.full((1, 1, 2, 3), value), f"y of an image full of {value}")
        assert_equal(dx[0, 0], expected, f"dx of an image full of {value}")


def last_of_several_nan_wins(backend: Backend, dtype: np.dtype) -> None:
    x = np.array([[[[1, np.nan, 5], [np.inf, 2, np.nan], [9, 8, 7]]]], dtype)
    y, dx = _pool_gradient(backend, x, padding=(0, 0))
    assert_equal(y, np.full((1, 1, 1, 1), np.nan), "y")
    assert_equal(dx[0, 0], [[0, 0, 0], [0, 0, 1], [0, 0, 0]], "dx")


def pool_of_nan_and_infinities_equals_torch(
    case: Case, seed: int, backend: Backend, dtype: np.dtype
) -> None:
    problem = drawn(case, dtype.name)
    x = problem.inputs["x"].copy()
    rng = np.random.default_rng(seed)
    x[rng.random(x.shape) < 0.15] = np.nan
    x[rng.random(x.shape) < 0.1] = np.inf
    x[rng.random(x.shape) < 0.4] = -np.inf
    changed = problem._replace(inputs={"x": x})
    actual, expected = run_backend(backend, changed), run_torch(changed)
    assert_equal(actual.outputs["y"], expected.outputs["y"], "y")
    assert_equal(actual.gradients["x"], expected.gradients["x"], "dx")


def argmax_is_left_out_when_not_needed(backend: Backend, dtype: np.dtype) -> None:
    x = backend.asarray(np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(dtype))
    y, argmax = backend.max_pool2d_forward(x, **POOL, need_argmax=False)
    require(argmax is None, "argmax: expected None")
    assert_equal(backend.to_numpy(y), backend.to_numpy(backend.max_pool2d_forward(x, **POOL)[0]), "y")


def argmax_takes_a_byte_where_the_window_is_small(backend: Backend, dtype: np.dtype) -> None:
    argmax = backend.max_pool2d_forward(backend.asarray(np.zeros((1, 1, 20, 20), dtype)), **POOL)[1]
    size = backend.to_numpy(argmax).itemsize
    require(size == 1, f"argmax: expected 1 byte for each element, got {size}")


# ---- softmax cross-entropy -------------------------------------------------------------------------

LOGITS: dict[str, list[list[float]]] = {
    "nan": [[0, np.nan, 1], [1, 2, 3]],
    "inf beside target": [[0, 1, np.inf], [1, 2, 3]],
    "inf at target": [[np.inf, 1, 0], [1, 2, 3]],
    "-inf beside target": [[0, -np.inf, 1], [1, 2, 3]],
    "-inf at target": [[-np.inf, 0, 1], [1, 2, 3]],
    "all -inf": [[-np.inf] * 3, [1, 2, 3]],
}


def loss_of_non_finite_logits_equals_torch(
    logits: list[list[float]], kind: str, backend: Backend, dtype: np.dtype
) -> None:
    labels = np.array([[0.5, 0.25, 0.25], [0, 0, 1]], dtype) if kind == "soft" else np.array([0, 2])
    smoothing = 0.1 if kind == "smoothed" else 0.0
    case = Case("softmax_cross_entropy", "rule", {}, {"label_smoothing": smoothing})
    inputs = {"logits": np.array(logits, dtype), "labels": labels, "class_weight": None}
    problem = Problem(case, inputs, np.ones((), dtype), 1e-6)
    actual, expected = run_backend(backend, problem), run_torch(problem)
    for name, a in actual.outputs.items():
        assert_close(a, expected.outputs[name], 1e-6, name)


def mean_loss_of_no_image_is_nan(backend: Backend, dtype: np.dtype) -> None:
    logits = backend.asarray(np.zeros((0, 4), dtype))
    labels = backend.asarray(np.zeros(0, np.int64))
    loss, probs = backend.softmax_cross_entropy_forward(logits, labels)
    assert_equal(backend.to_numpy(loss), np.nan, "loss")
    dlogits = backend.softmax_cross_entropy_backward(probs, labels)
    assert_equal(backend.to_numpy(dlogits), np.zeros((0, 4)), "dlogits")


def loss_where_all_rows_are_ignored_equals_torch(
    smoothing: float, backend: Backend, dtype: np.dtype
) -> None:
    attrs = {"label_smoothing": smoothing, "ignore_index": -100, "reduction": "mean"}
    case = Case("softmax_cross_entropy", "rule", {}, attrs)
    inputs = {"logits": np.ones((2, 3), dtype), "labels": np.full(2, -100), "class_weight": None}
    problem = Problem(case, inputs, np.ones((), dtype), 1e-6)
    actual, expected = run_backend(backend, problem), run_torch(problem)
    assert_equal(actual.outputs["loss"], expected.outputs["loss"], "loss")
    assert_equal(actual.gradients["logits"], np.zeros((2, 3)), "dlogits")


def an_ignored_row_passes_nothing_on(backend: Backend, dtype: np.dtype) -> None:
    """Whatever its logits are."""
    logits = np.array([[np.nan, 1, np.inf], [1, 2, 3]], dtype)
    labels = backend.asarray(np.array([-100, 0]))
    for reduction, expected in (("mean", 2.407606), ("sum", 2.407606), ("none", [0, 2.407606])):
        loss, probs = backend.softmax_cross_entropy_forward(
            backend.asarray(logits), labels, reduction=reduction
        )
        assert_close(backend.to_numpy(loss), np.asarray(expected), 1e-6, f"loss, {reduction}")
        dlogits = backend.softmax_cross_entropy_backward(probs, labels, reduction=reduction)
        assert_equal(backend.to_numpy(dlogits)[0], np.zeros(3), f"dlogits, {reduction}")


def loss_is_a_0d_array_of_the_backend(backend: Backend, dtype: np.dtype) -> None:
    logits = backend.asarray(np.zeros((2, 4), dtype))
    loss, _ = backend.softmax_cross_entropy_forward(logits, backend.asarray(np.array([0, 1])))
    require(type(loss) is type(logits), f"loss: expected a {type(logits)}, got a {type(loss)}")
    assert_close(backend.to_numpy(loss), np.log(np.array(4.0)), 1e-6, "loss")


# ---- batch norm, and state -------------------------------------------------------------------------


def training_on_no_image_equals_torch(backend: Backend, dtype: np.dtype) -> None:
    problem = drawn(_case("batch_norm2d-evaluation-batch0"), dtype.name)
    case = Case("batch_norm2d", "rule", {}, {**problem.case.attrs, "training": True})
    problem = problem._replace(case=case)
    with np.errstate(invalid="ignore"):
        actual, expected = run_backend(backend, problem), run_torch(problem)
    for name in ("y", "running_mean", "running_var"):
        assert_equal(actual.outputs[name], expected.outputs[name], name)
    for name, a in actual.gradients.items():
        assert_equal(a, expected.gradients[name], f"d{name}")


def evaluation_leaves_the_running_statistics(backend: Backend, dtype: np.dtype) -> None:
    problem = drawn(_case("batch_norm2d-evaluation"), dtype.name)
    outputs = run_backend(backend, problem).outputs
    for name in ("running_mean", "running_var"):
        assert_equal(outputs[name], problem.inputs[name], name)


def nothing_is_kept_between_calls(case: Case, backend: Backend, dtype: np.dtype) -> None:
    """A call gives the same bits after calls with other shapes."""
    first, other = drawn(case, dtype.name), draw(CASES[1], dtype)
    before = run_backend(backend, first)
    run_backend(backend, other)
    after = run_backend(backend, first)
    for name, a in before.gradients.items():
        require(a.tobytes() == after.gradients[name].tobytes(), f"d{name}: other bits than before")


# ---- the list ----------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    *(Rule(op, holds.__name__.replace("_", " "), holds) for op, holds in (
        ("relu", relu_has_no_slope_at_zero),
        ("relu", relu_of_negative_zero_is_zero),
        ("relu", relu_keeps_nan_and_passes_its_gradient),
        ("relu", relu_keeps_denormals_and_compares_them),
        ("relu6", relu6_keeps_nan_and_has_no_slope_at_its_ends),
        ("max_pool2d", max_pool_keeps_denormals_and_compares_them),
        ("max_pool2d", tie_goes_to_the_first_cell_in_row_major_order),
        ("max_pool2d", negative_and_positive_zero_tie),
        ("max_pool2d", padding_never_wins),
        ("max_pool2d", last_of_several_nan_wins),
        ("max_pool2d", argmax_is_left_out_when_not_needed),
        ("max_pool2d", argmax_takes_a_byte_where_the_window_is_small),
        ("softmax_cross_entropy", mean_loss_of_no_image_is_nan),
        ("softmax_cross_entropy", an_ignored_row_passes_nothing_on),
        ("softmax_cross_entropy", loss_is_a_0d_array_of_the_backend),
        ("batch_norm2d", training_on_no_image_equals_torch),
        ("batch_norm2d", evaluation_leaves_the_running_statistics),
    )),
    *(Rule(op, "arrays of no dimension stay arrays", partial(arrays_of_no_dimension_stay_arrays, op))
      for op in ("relu", "relu6", "add", "add_relu", "dropout")),
    *(Rule(op, "fused selection of denormals is the composition",
           partial(fused_selection_of_denormals_is_the_composition, op))
      for op in ("conv2d_relu", "conv2d_max_pool2d", "conv2d_relu_max_pool2d")),
    *(Rule("max_pool2d", f"{case.id} with NaN and infinities, draw {seed}",
           partial(pool_of_nan_and_infinities_equals_torch, case, seed))
      for case in CASES if case.op == "max_pool2d" and case.exact for seed in range(3)),
    *(Rule("softmax_cross_entropy", f"loss where all rows are ignored equals torch, smoothing {smoothing}",
           partial(loss_where_all_rows_are_ignored_equals_torch, smoothing)) for smoothing in (0.0, 0.1)),
    *(Rule("softmax_cross_entropy", f"{name}, {kind} labels",
           partial(loss_of_non_finite_logits_equals_torch, logits, kind))
      for name, logits in LOGITS.items() for kind in ("hard", "smoothed", "soft")),
    *(Rule("make_batch", f"the bits of numpy's images one by one, {channels} channels",
           partial(has_the_bits_of_numpys_images_one_by_one, channels)) for channels in (1, 2, 3)),
    Rule("conv2d", "nothing is kept between calls", partial(nothing_is_kept_between_calls, CASES[0])),
)  # fmt: skip


def rule_checks() -> Iterator[Check]:
    """Every rule in both dtypes."""
    for rule in RULES:
        for dtype in DTYPES:
            yield Check(rule.op, dtype, "rule", rule.name, partial(_hold, rule, dtype))


def _hold(rule: Rule, dtype: str, backend: Backend) -> None:
    rule.holds(backend, np.dtype(dtype))
