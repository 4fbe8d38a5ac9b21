"""Wrong arguments: every backend says the same words, and what torch refuses is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BACKENDS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minicnn.backends import Backend, Conv, Pair, Pool, available_backends, get_backend
from minicnn.testing import OPERATIONS, REFUSALS, Check, Wrong, draw, refusal_checks
from minicnn.testing.checks import FIRST_OF_EACH_OP, drawn
from minicnn.testing.oracle import to_backend
from minicnn.testing.refusals import f32, i64

REFUSED_BY_TORCH = [wrong for wrong in REFUSALS if wrong.torch_refuses]
TORCH_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)


@pytest.mark.parametrize("wrong", REFUSED_BY_TORCH, ids=str)
def test_torch_refuses_it(wrong: Wrong) -> None:
    inputs, attrs = wrong.arguments()
    tensors = {n: torch.tensor(a) if isinstance(a, np.ndarray) else a for n, a in inputs.items()}
    with pytest.raises(TORCH_ERRORS):
        OPERATIONS[wrong.op].torch(torch, tensors, attrs)


@pytest.mark.parametrize("check", list(refusal_checks()), ids=str)
def test_backend_refuses_it_and_says_why(backend: Backend, check: Check) -> None:
    check.run(backend)


BACKWARD = {
    "conv2d": ((2, 4, 5, 3), "dy: expected shape (2, 4, 5, 4), got (2, 4, 5, 3)"),
    "max_pool2d": ((2, 3, 3, 3), "dy: expected shape (2, 3, 3, 4), got (2, 3, 3, 3)"),
    "avg_pool2d": ((2, 3, 2, 4), "dy: expected shape (2, 3, 3, 4), got (2, 3, 2, 4)"),
    "adaptive_avg_pool2d": (
        (2, 4, 1, 1),
        "input_shape: expected (N, C) = (2, 4) and H, W, got (2, 3, 5, 7)",
    ),
    "relu": ((2, 3, 5, 6), "y: expected shape (2, 3, 5, 6), got (2, 3, 5, 7)"),
    "relu6": ((2, 3, 5, 6), "y: expected shape (2, 3, 5, 6), got (2, 3, 5, 7)"),
    "dense": ((4, 6), "dy: expected shape (4, 7), got (4, 6)"),
    "batch_norm2d": ((4, 3, 5, 5), "dy: expected shape (4, 3, 5, 6), got (4, 3, 5, 5)"),
    "dropout": ((4, 3, 5, 4), "keep_mask: expected shape (4, 3, 5, 4), got (4, 3, 5, 5)"),
    "softmax": ((5, 9), "p: expected shape (5, 9), got (5, 10)"),
    "concat": ((2, 4, 4, 5), "sizes: expected positive sizes with sum C=4, got (3,)"),
    "flatten": ((3, 39), "dy: expected shape (3, 40), got (3, 39)"),
}


@pytest.mark.parametrize("op", BACKWARD)
def test_torch_refuses_the_upstream_gradient_too(op: str) -> None:
    problem = drawn(FIRST_OF_EACH_OP[op], "float32")
    tensors = {n: a if a is None else torch.tensor(a) for n, a in problem.inputs.items()}
    tensors["x0" if op == "concat" else "x"].requires_grad_()
    y = OPERATIONS[op].torch(torch, tensors, problem.case.attrs)
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        next(iter(y.values())).backward(torch.zeros(BACKWARD[op][0]))


@pytest.mark.parametrize("op", BACKWARD)
def test_wrong_upstream_gradient_is_named(backend: Backend, op: str) -> None:
    shape, message = BACKWARD[op]
    case = FIRST_OF_EACH_OP[op]
    arrays = to_backend(backend, draw(case, np.float32).inputs)
    _, backward = OPERATIONS[op].run(backend, arrays, case.attrs)
    with pytest.raises(ValueError, match=rf"^{re.escape(f'[{op}_backward] {message}')}$"):
        backward(backend.asarray(f32(*shape)))


@pytest.mark.parametrize("op", [op for op in BACKWARD if op not in ("add", "relu", "relu6", "softmax")])
def test_upstream_gradient_of_integers_is_refused(backend: Backend, op: str) -> None:
    case = FIRST_OF_EACH_OP[op]
    problem = draw(case, np.float32)
    _, backward = OPERATIONS[op].run(backend, to_backend(backend, problem.inputs), case.attrs)
    with pytest.raises(ValueError, match=rf"^\[{op}_backward\] dy: expected dtype .*float32.*, got int64$"):
        backward(backend.asarray(i64(*problem.dy.shape)))


def test_optimizer_lists_must_match(backend: Backend) -> None:
    a, b = backend.asarray(f32(3)), backend.asarray(f32(4))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    with pytest.raises(ValueError, match=r"^\[sgd_step\] grads: expected 2 arrays, got 1$"):
        backend.sgd_step([a, b], [a], [a, b], **options)
    with pytest.raises(ValueError, match=r"^\[sgd_step\] grads\[1\]: expected shape \(4,\), got \(3,\)$"):
        backend.sgd_step([a, b], [a, a], [a, b], **options)


# ---- random attributes: accepted and refused as torch does -----------------------------------------

SIZE = st.sampled_from((1, 1, 2, 2, 3, 3, 4, 0))  # 0 is refused: seldom, or little else is tried
PAIR = st.tuples(SIZE, SIZE)
PADDING = st.tuples(*[st.sampled_from((0, 0, 1, 1, 2, 3, -1))] * 2)
SIDE = st.integers(1, 6)


def shape_or_refusal(run: Callable[[], Any]) -> tuple[int, ...] | None:
    """The output's shape, or None where the arguments are refused."""
    try:
        return tuple(run().shape)
    except (RuntimeError, ValueError):
        return None


def assert_as_torch(op: str, inputs: dict[str, np.ndarray | None], attrs: dict[str, Any]) -> None:
    tensors = {name: None if a is None else torch.from_numpy(a) for name, a in inputs.items()}
    expected = shape_or_refusal(lambda: OPERATIONS[op].torch(torch, tensors, attrs)["y"])
    for name in BACKENDS:
        backend = get_backend(name)
        arrays = to_backend(backend, inputs)
        actual = shape_or_refusal(lambda: OPERATIONS[op].run(backend, arrays, attrs)[0]["y"])  # noqa: B023 - called here
        assert actual == expected, f"{name}: {actual}, torch: {expected}"


def test_an_image_that_no_memory_holds_with_its_padding(backend: Backend) -> None:
    """2**62 values: the kernels' sizes in bytes would overflow."""
    x, weight = (backend.asarray(f32(1, 4, *size)) for size in ((1, 1), (2, 2)))
    far = {"stride": (2, 2), "padding": (2**29, 2**29), "dilation": (2**30 - 1, 2**30 - 1), "groups": 1}
    with pytest.raises((MemoryError, ValueError)):
        backend.conv2d_forward(x, weight, None, **far)


@pytest.mark.skipif(available_backends()["cpp"] is not None, reason="the kernel is the cpp backend's")
def test_winners_of_another_pool_write_nowhere_else(rng: np.random.Generator) -> None:
    cpp = get_backend("cpp")
    conv, pool = Conv((1, 1), (1, 1), (1, 1), 1), Pool((2, 2), (2, 2), (0, 0), (1, 1), False)
    x, weight = (cpp.asarray(rng.standard_normal(shape)) for shape in ((2, 3, 8, 8), (4, 3, 3, 3)))
    y, saved = cpp.conv2d_max_pool2d_forward(x, weight, None, conv=conv, pool=pool)
    kind, winner = saved
    assert kind == "fused"
    winner.fill_(254)
    dx, _, _ = cpp.conv2d_max_pool2d_backward(
        y, x, weight, saved, conv=conv, pool=pool, need_dw=False, need_db=False
    )
    np.testing.assert_array_equal(cpp.to_numpy(dx), np.zeros((2, 3, 8, 8)))


FEW = settings(max_examples=200, deadline=None, derandomize=True)


@FEW
@given(SIDE, SIDE, PAIR, PAIR, PADDING, PAIR, st.integers(0, 4), st.integers(1, 4), st.integers(1, 4))
@example(1, 1, (2, 2), (1, 1), (1, 1), (1, 1), 1, 3, 2)
def test_conv2d_accepts_what_torch_accepts(
    h: int,
    w: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    c: int,
    f: int,
) -> None:
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    inputs = {"x": f32(2, c, h, w), "weight": f32(f, c // max(groups, 1), *kernel), "bias": f32(f)}
    assert_as_torch("conv2d", inputs, attrs)


@FEW
@given(SIDE, SIDE, PAIR, PAIR, PADDING, PAIR, st.booleans())
def test_max_pool2d_accepts_what_torch_accepts(
    h: int, w: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool
) -> None:
    attrs = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    assert_as_torch("max_pool2d", {"x": f32(1, 2, h, w)}, {**attrs, "ceil_mode": ceil})


@FEW
@given(SIDE, SIDE, PAIR, PAIR, PADDING, st.booleans())
def test_avg_pool2d_accepts_what_torch_accepts(
    h: int, w: int, kernel: Pair, stride: Pair, padding: Pair, ceil: bool
) -> None:
    attrs = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    assert_as_torch("avg_pool2d", {"x": f32(1, 2, h, w)}, {**attrs, "count_include_pad": True})
