"""What a backward pass does with what another call's forward pass saved.

Its kind, shapes and dtypes are checked.  Where they are right, a winner of a max-pool may still be a cell
that the window does not have, or one outside the image: it passes no gradient on, on every backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from minicnn.backends.base import Backend, Conv, Pool
from minicnn.backends.numpy_backend import NumpyBackend
from minicnn.testing.cases import Case
from minicnn.testing.checks import DTYPES, FIRST_OF_EACH_OP, Check, drawn
from minicnn.testing.operations import OPERATIONS, PARAMETRIC
from minicnn.testing.tolerance import assert_close, require

POOLED = ("max_pool2d", "conv2d_max_pool2d", "conv2d_relu_max_pool2d", "batch_norm2d_relu_max_pool2d")
TUPLES = ("batch_norm2d_relu", "batch_norm2d_add_relu", *POOLED[1:])
"""Operations whose ``saved`` is a tuple on every backend."""
RELUS = ("conv2d_relu", "conv2d_relu_max_pool2d", "dense_relu", "add_relu", *TUPLES[:2], POOLED[3])


class Map(NamedTuple):
    """A square map and a max-pool over it."""

    side: int
    pool: Pool


def _pool(
    kernel: int, stride: int, padding: int = 0, *, width: int | None = None, ceil: bool = False
) -> Pool:
    return Pool((kernel, width or kernel), (stride, stride), (padding, padding), (1, 1), ceil)


PAIRS = {
    "an unpadded pool's for a padded one": (Map(9, _pool(3, 2)), Map(8, _pool(3, 2, 1))),
    "a 3x3 window's for a 2x2 window": (Map(12, _pool(3, 3)), Map(8, _pool(2, 2))),
    "whole windows' for windows that hang over": (Map(8, _pool(2, 2)), Map(7, _pool(2, 2, ceil=True))),
    "a 2x2 window's for a 2x1 window": (Map(8, _pool(2, 2)), Map(8, _pool(2, 2, width=1))),
    "a 3x3 window's for a 4x1 window": (Map(12, _pool(3, 3)), Map(16, _pool(4, 4, width=1))),
}
"""The call whose ``saved`` is used, and the call that uses it; all pooled maps are 4x4."""
LARGE = (Map(20, _pool(17, 1)), Map(8, _pool(2, 2)))
CONVS = (Conv((1, 1), (1, 1), (1, 1), 1), Conv((1, 1), (1, 1), (1, 1), 2))


def foreign_saved_checks() -> Iterator[Check]:
    """Every operation that takes ``saved`` or ``argmax``, with that of another call."""
    for op in POOLED:
        for dtype in DTYPES:
            for name, (first, second) in PAIRS.items():
                for conv in CONVS if op.startswith("conv2d") else CONVS[:1]:
                    run = partial(_cells_outside_pass_nothing, op, dtype, first, second, conv)
                    yield Check(op, dtype, "refusal", f"winners: {name}, groups={conv.groups}", run)
        for first, second in (LARGE, LARGE[::-1]):
            got, expected = ("int64", "uint8") if first.side == 20 else ("uint8", "int64")
            message = f"[max_pool2d_backward] argmax: expected dtype {expected}, got {got}"
            other, own = (_problem(op, m, CONVS[0], np.dtype("float32")) for m in (first, second))
            yield Check(op, "float32", "refusal", message, partial(_refused, op, other, own, message))
    for op in TUPLES:
        for saved, got in ((None, "None"), ([], "list"), ((1, 2, 3, 4, 5), "another tuple")):
            message = f"[{op}_backward] saved: expected what the forward pass saved, got {got}"
            yield Check(op, "float32", "refusal", message, partial(_junk_is_refused, op, saved, message))
    for op in (*RELUS, "max_pool2d", "conv2d_max_pool2d"):
        yield Check(
            op, "float32", "refusal", "saved of a larger batch", partial(_larger_batch_is_refused, op)
        )


# ---- running a backward pass with the saved of another call -------------------------------------------


class _Foreign:
    """A backend on which one operation's forward pass gives back a ``saved`` from elsewhere.

    The first forward pass gives its own, unless there is one already; all later ones give the same.
    """

    def __init__(self, backend: Backend, op: str, *saved: Any) -> None:
        self._backend, self._op, self._saved = backend, op, list(saved)

    def __getattr__(self, name: str) -> Any:
        return self._forward if name == f"{self._op}_forward" else getattr(self._backend, name)

    def _forward(self, *arrays: Any, **attributes: Any) -> tuple[Any, Any]:
        y, own = getattr(self._backend, f"{self._op}_forward")(*arrays, **attributes)
        if not self._saved:
            self._saved.append(own)
        return y, self._saved[0]


class _Problem(NamedTuple):
    """The inputs and attributes of one call."""

    inputs: dict[str, Any]
    attrs: dict[str, Any]

    def run(self, backend: Any, op: str) -> Any:
        arrays = {name: None if a is None else backend.asarray(a.copy()) for name, a in self.inputs.items()}
        return OPERATIONS[op].run(cast(Backend, backend), arrays, self.attrs)


def _gradients(backend: Backend, op: str, other: _Problem, own: _Problem, dy: np.ndarray) -> dict[str, Any]:
    """The gradients of one call with the ``saved`` of the other."""
    foreign = _Foreign(backend, op)
    other.run(foreign, op)
    _, backward = own.run(foreign, op)
    gradients = backward(backend.asarray(dy))
    return {name: None if g is None else backend.to_numpy(g) for name, g in gradients.items()}


def _problem(op: str, m: Map, conv: Conv, dtype: np.dtype) -> _Problem:
    """A call over this map; a convolution's numbers are small and whole, so that all winners are exact."""
    rng = np.random.default_rng(m.side)
    image = (2, 4, m.side, m.side)
    if op == "max_pool2d":
        return _Problem({"x": rng.standard_normal(image).astype(dtype)}, m.pool._asdict())
    pool = m.pool._asdict()
    if op.startswith("conv2d"):
        shapes = {"x": image, "weight": (6, 4 // conv.groups, 3, 3), "bias": (6,)}
        inputs = {name: rng.integers(-3, 4, shape).astype(dtype) for name, shape in shapes.items()}
        return _Problem(inputs, {**conv._asdict(), "pool": pool})
    inputs = {name: rng.standard_normal(image if name == "x" else 4).astype(dtype) for name in PARAMETRIC}
    norm = {"training": True, "momentum": 0.1, "eps": 1e-5}
    return _Problem({**inputs, "running_mean": None, "running_var": None}, {**norm, "pool": pool})


# ---- what is checked ------------------------------------------------------------------------------------


def _cells_outside_pass_nothing(
    op: str, dtype: str, first: Map, second: Map, conv: Conv, backend: Backend
) -> None:
    other, own = (_problem(op, m, conv, np.dtype(dtype)) for m in (first, second))
    channels = 6 if op.startswith("conv2d") else 4
    dy = np.random.default_rng(0).integers(-3, 4, (2, channels, 4, 4)).astype(dtype)
    actual = _gradients(backend, op, other, own, dy)
    expected = _expected(op, first.pool, other, second.pool, own, conv, dy)
    for name, gradient in actual.items():
        assert_close(gradient, expected[name], 0 if "conv" in op else 1e-5, f"d{name}")


def _expected(
    op: str, pool: Pool, other: _Problem, own_pool: Pool, own: _Problem, conv: Conv, dy: np.ndarray
) -> dict[str, np.ndarray | None]:
    """The gradients, by a loop over the winners of the other call."""
    b = NumpyBackend()
    z, x = other.inputs["x"], own.inputs["x"]
    if op.startswith("conv2d"):
        z = b.conv2d_forward(z, other.inputs["weight"], other.inputs["bias"], **conv._asdict())
    elif op.startswith("batch_norm2d"):
        norm = {name: other.attrs[name] for name in ("training", "momentum", "eps")}
        z, mean, invstd = b.batch_norm2d_forward(
            z, other.inputs["weight"], other.inputs["bias"], None, None, **norm
        )
    y, argmax = b.max_pool2d_forward(z, **pool._asdict())
    if "relu" in op:
        dy = np.where(y <= 0, 0, dy).astype(dy.dtype)
    dz = _to_winners(dy, argmax, own_pool, (*dy.shape[:2], *x.shape[2:]))
    if op == "max_pool2d":
        return {"x": dz}
    weight = own.inputs["weight"]
    if op.startswith("conv2d"):
        gradients = b.conv2d_backward(dz, x, weight, **conv._asdict())
    else:
        gradients = b.batch_norm2d_backward(dz, x, weight, mean, invstd, training=True)
    return dict(zip(PARAMETRIC, gradients, strict=True))


def _to_winners(dy: np.ndarray, argmax: Any, pool: Pool, shape: tuple[int, ...]) -> np.ndarray:
    dz = np.zeros(shape, dy.dtype)
    for place, gradient in np.ndenumerate(dy):
        cell = int(argmax[place])
        h = place[2] * pool.stride[0] - pool.padding[0] + cell // pool.kernel_size[1]
        w = place[3] * pool.stride[1] - pool.padding[1] + cell % pool.kernel_size[1]
        if cell < pool.kernel_size[0] * pool.kernel_size[1] and 0 <= h < shape[2] and 0 <= w < shape[3]:
            dz[place[0], place[1], h, w] += gradient
    return dz


def _refused(op: str, other: _Problem, own: _Problem, message: str, backend: Backend) -> None:
    channels = 6 if op.startswith("conv2d") else 4
    dy = np.zeros((2, channels, 4, 4), own.inputs["x"].dtype)
    _require_refusal(lambda: _gradients(backend, op, other, own, dy), message)


def _junk_is_refused(op: str, saved: Any, message: str, backend: Backend) -> None:
    problem = _first_problem(op)
    outputs, backward = problem.run(_Foreign(backend, op, saved), op)
    _require_refusal(lambda: backward(outputs["y"]), message)


def _larger_batch_is_refused(op: str, backend: Backend) -> None:
    own = _first_problem(op)
    images = {name for name in ("x", "a", "b", "residual") if name in own.inputs}
    more: dict[str, Any] = {
        name: np.concatenate([own.inputs[name], own.inputs[name][:1]]) for name in images
    }
    other = _Problem({**own.inputs, **more}, own.attrs)
    outputs, _ = own.run(backend, op)
    shape = tuple(outputs["y"].shape)
    argument = "[relu_backward] y" if op in RELUS else "[max_pool2d_backward] argmax"
    message = f"{argument}: expected shape {shape}, got {(shape[0] + 1, *shape[1:])}"
    dy = np.zeros(shape, np.float32)
    _require_refusal(lambda: _gradients(backend, op, other, own, dy), message)


def _first_problem(op: str) -> _Problem:
    case: Case = FIRST_OF_EACH_OP[op]
    return _Problem(dict(drawn(case, "float32").inputs), dict(case.attrs))


def _require_refusal(call: Any, message: str) -> None:
    try:
        call()
    except ValueError as error:
        require(str(error) == message, f"expected the error {message!r}, got {str(error)!r}")
    else:
        raise AssertionError(f"expected the error {message!r}, got a result")
