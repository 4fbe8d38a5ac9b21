"""Drawing a case's inputs, and running it on a backend and in torch, in float64 with autograd."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minicnn.backends.base import Backend
from minicnn.shapes import padding_of_axis
from minicnn.testing.cases import Case
from minicnn.testing.operations import OPERATIONS, RUNNING
from minicnn.testing.tolerance import tolerance

ATTEMPTS = 100
KINK_GAP = 1e-4
"""The least distance from a kink, relative to the largest value; far above float32's rounding error."""


HostArrays = dict[str, Any]
"""NumPy arrays by name; None for an argument that is left out."""


class Problem(NamedTuple):
    """A case's inputs and upstream gradient, in one dtype."""

    case: Case
    inputs: HostArrays
    dy: np.ndarray
    tolerance: float


class Results(NamedTuple):
    """Outputs by name, the differentiable one first, and gradients by input name."""

    outputs: HostArrays
    gradients: HostArrays


def draw(case: Case, dtype: Any, seed: int = 0) -> Problem:
    """The case's inputs and upstream gradient, always the same for a case, a dtype and a seed.

    For a fused operation, inputs are drawn again until no value is near a kink of its ReLU or max-pool:
    there, rounding would decide which side it is on.  Cases of whole numbers keep their exact ties.
    """
    operation = OPERATIONS[case.op]
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng(
            [attempt + ATTEMPTS * seed, zlib.crc32(f"{case.op}/{case.id}".encode())]
        )
        inputs = {name: _cast(a, dtype) for name, a in case.make_inputs(rng).items()}
        if case.exact or _distance_from_kinks(case, inputs) > KINK_GAP:
            break
    else:
        raise AssertionError(f"{case}: every draw has a value near a kink; make the case smaller")
    shape = _output_shape(case, inputs)
    values = rng.integers(-3, 4, shape) if case.exact else rng.standard_normal(shape)
    dy = np.asarray(values, dtype) if shape else np.ones((), dtype)
    terms = 0 if case.exact else operation.terms(inputs, case.attrs)
    return Problem(case, inputs, dy, tolerance(dtype, terms))


def _cast(a: np.ndarray | None, dtype: Any) -> np.ndarray | None:
    return a.astype(dtype) if a is not None and a.dtype.kind == "f" else a


def _tensors(torch: Any, inputs: HostArrays) -> dict[str, Any]:
    def tensor(a: np.ndarray) -> Any:
        if a.dtype.kind != "f":
            return torch.from_numpy(a.copy())
        return torch.from_numpy(a.astype(np.float64)).requires_grad_()

    return {name: None if a is None else tensor(a) for name, a in inputs.items()}


def _output_shape(case: Case, inputs: HostArrays) -> tuple[int, ...]:
    import torch

    with torch.no_grad():
        outputs = OPERATIONS[case.op].torch(torch, _tensors(torch, inputs), case.attrs)
    return tuple(next(iter(outputs.values())).shape)


def _distance_from_kinks(case: Case, inputs: HostArrays) -> float:
    before_kink = OPERATIONS[case.op].before_kink
    if before_kink is None:
        return np.inf
    import torch

    with torch.no_grad():
        z = before_kink(torch, _tensors(torch, inputs), case.attrs).numpy()
    if z.size == 0:
        return np.inf
    nearest = np.abs(z).min() if case.op != "conv2d_max_pool2d" else np.inf
    if "pool" in case.attrs:
        nearest = min(nearest, _winning_margin(z, case.attrs["pool"]))
    return float(nearest / np.abs(z).max())


def _winning_margin(z: np.ndarray, pool: dict[str, Any]) -> float:
    """The smallest difference between the largest and the second largest value of a window."""
    (kh, kw), (sh, sw), (dh, dw) = pool["kernel_size"], pool["stride"], pool["dilation"]
    (top, bottom), (left, right) = (padding_of_axis(pool["padding"], axis) for axis in range(2))
    more_h, more_w = min(sh, z.shape[2]), min(sw, z.shape[3])  # for the windows that ceil_mode adds
    pads = ((0, 0), (0, 0), (top, bottom + more_h), (left, right + more_w))
    padded = np.pad(z, pads, constant_values=-np.inf)
    windows = sliding_window_view(padded, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), (2, 3))
    cells = windows[:, :, ::sh, ::sw, ::dh, ::dw].reshape(-1, kh * kw)
    first_two = np.sort(cells, axis=1)[:, -2:]
    real = first_two[np.isfinite(first_two).all(axis=1)]
    return float((real[:, 1] - real[:, 0]).min(initial=np.inf)) if kh * kw > 1 else np.inf


def to_backend(backend: Backend, inputs: HostArrays) -> dict[str, Any]:
    """The backend's arrays; running statistics are copied first, because operations change them."""

    def array(name: str, a: np.ndarray | None) -> Any:
        if a is None:
            return None
        return backend.asarray(a.copy() if name in RUNNING else a)

    return {name: array(name, a) for name, a in inputs.items()}


def run_backend(backend: Backend, problem: Problem, **need: bool) -> Results:
    """The case's results on a backend.  ``need`` are need_dx, need_dw and need_db of its backward pass."""
    case = problem.case
    arrays = to_backend(backend, problem.inputs)
    outputs, backward = OPERATIONS[case.op].run(backend, arrays, case.attrs)
    gradients = backward(backend.asarray(problem.dy), **need)

    def host(a: Any) -> np.ndarray | None:
        return None if a is None else backend.to_numpy(a)

    return Results(
        {name: host(a) for name, a in outputs.items()},
        {name: host(a) for name, a in gradients.items()},
    )


def run_torch(problem: Problem) -> Results:
    """The case's results in torch, in float64; the gradients are autograd's."""
    import torch

    case = problem.case
    tensors = _tensors(torch, problem.inputs)
    outputs = OPERATIONS[case.op].torch(torch, tensors, case.attrs)
    y = next(iter(outputs.values()))
    y.backward(torch.from_numpy(problem.dy.astype(np.float64)))
    gradients = {
        name: t.grad.numpy() for name, t in tensors.items() if t is not None and t.grad is not None
    }
    return Results(
        {name: None if o is None else o.detach().numpy() for name, o in outputs.items()}, gradients
    )
