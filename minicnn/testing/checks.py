"""What is checked of every case: one list for the test suite and for ``python -m minicnn.verify``.

A kind of check is a function of a backend and a problem, a drawn case.  It raises AssertionError if the
backend breaks the contract.  The comparison with torch also returns the largest difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends.base import Backend
from minicnn.shapes import is_bfloat16
from minicnn.testing.bfloat16 import ACTIVATIONS, WITHOUT, assert_result, dtype_of, roundings
from minicnn.testing.cases import CASES, Case
from minicnn.testing.differences import Point, assert_slope
from minicnn.testing.layouts import LAYOUTS, foreign_byte_order
from minicnn.testing.operations import NEED, OPERATIONS, RUNNING
from minicnn.testing.oracle import Problem, Results, draw, run_backend, run_torch, to_backend
from minicnn.testing.tolerance import Error, assert_close, assert_equal, error, require, tolerance

DTYPES = ("float32", "float64")
DRAWS = 10
"""How many times a case's inputs are drawn for ``full`` checks."""


class Check(NamedTuple):
    """One thing to check on a backend; ``run`` raises AssertionError if it does not hold."""

    op: str
    dtype: str
    kind: str
    subject: str
    """The case, the rule or the refusal."""
    run: Callable[[Backend], Error | None]

    def __str__(self) -> str:
        return f"{self.op}-{self.subject}-{self.kind}-{self.dtype}"


@lru_cache(maxsize=4096)
def drawn(case: Case, dtype: str, seed: int = 0) -> Problem:
    """A case's inputs, cached and read-only, so that every check and every backend gets the same."""
    problem = draw(case, dtype_of(dtype), seed)
    for a in (*problem.inputs.values(), problem.dy):
        if a is not None:
            a.flags.writeable = False
    return problem


@lru_cache(maxsize=4096)
def solved(case: Case, dtype: str, seed: int = 0) -> Results:
    """torch's results for what `drawn` gives, cached."""
    return run_torch(drawn(case, dtype, seed))


# ---- the kinds -------------------------------------------------------------------------------------


def torch_autograd(backend: Backend, problem: Problem, expected: Results) -> Error:
    """Outputs and gradients equal torch's, and have the case's dtype.  Returns the largest error."""
    actual = run_backend(backend, problem)
    case, dtype = problem.case, problem.dy.dtype.newbyteorder("=")
    if "bias" in actual.gradients and case.inputs["bias"] is None:
        actual.gradients.pop("bias")  # torch gives no gradient for a bias that is None
    require(actual.outputs.keys() == expected.outputs.keys(), f"outputs: got {[*actual.outputs]}")
    pairs = [(name, a, expected.outputs[name]) for name, a in actual.outputs.items()]
    pairs += [(f"d{name}", a, expected.gradients.get(name)) for name, a in actual.gradients.items()]
    for name, a, wanted in pairs:
        require(
            a is None or a.dtype == dtype,
            f"{name}: expected dtype {dtype}, got {a is not None and a.dtype}",
        )
        assert_close(a, wanted, problem.tolerance, name)
    errors = [error(a, wanted) for _, a, wanted in pairs]
    return Error(max(e.relative for e in errors), max(e.ulps for e in errors))


def half_a_unit(backend: Backend, problem: Problem, expected: Results) -> Error:
    """Outputs and gradients of activations are within half a unit of bfloat16 of float64's, in bfloat16.

    See `minicnn.testing.bfloat16`.  Returns the largest error, in such units.
    """
    case = problem.case
    actual = run_backend(backend, problem)
    if "bias" in actual.gradients and case.inputs["bias"] is None:
        actual.gradients.pop("bias")  # torch gives no gradient for a bias that is None
    errors = []
    for name, a in actual.outputs.items():
        dtype = problem.dy.dtype if name in ACTIVATIONS else np.float32
        wanted = expected.outputs[name]
        times = roundings(backend, case.op)
        errors.append(assert_result(a, wanted, problem.tolerance, name, dtype, times))
    for name, a in actual.gradients.items():
        given, wanted = problem.inputs[name], expected.gradients.get(name)
        dtype = np.float32 if given is None else given.dtype
        errors.append(assert_result(a, wanted, problem.tolerance, f"d{name}", dtype))
    return Error(max(e.relative for e in errors), max(e.ulps for e in errors))


def central_differences(backend: Backend, problem: Problem) -> None:
    """The gradients predict how the operation's output changes with its inputs; needs float64."""
    case = problem.case
    gradients = run_backend(backend, problem).gradients
    given = {name: a for name, a in gradients.items() if problem.inputs[name] is not None}

    def loss(point: Point) -> float:
        outputs, _ = OPERATIONS[case.op].run(
            backend, to_backend(backend, {**problem.inputs, **point}), case.attrs
        )
        return float(np.vdot(backend.to_numpy(next(iter(outputs.values()))), problem.dy))

    point = {name: problem.inputs[name] for name in given}
    assert_slope(loss, point, given, np.random.default_rng(problem.dy.size))


_AFFINE = (("x", "bias"), ("weight", "bias"))
_MAP = (("x",),)
_SCALE = (("weight", "bias"),)
_SUM = (("a", "b"),)

HOMOGENEOUS: dict[str, tuple[tuple[str, ...], ...]] = {
    "conv2d": _AFFINE, "conv2d_relu": _AFFINE, "conv2d_max_pool2d": _AFFINE,
    "conv2d_relu_max_pool2d": _AFFINE, "dense": _AFFINE, "dense_relu": _AFFINE, "max_pool2d": _MAP,
    "avg_pool2d": _MAP, "adaptive_avg_pool2d": _MAP, "relu": _MAP, "dropout": _MAP, "flatten": _MAP,
    "concat": (("x0", "x1", "x2"),), "add": _SUM, "add_relu": _SUM, "batch_norm2d": _SCALE,
    "batch_norm2d_relu": _SCALE, "batch_norm2d_add_relu": (("residual", "weight", "bias"),),
    "batch_norm2d_relu_max_pool2d": _SCALE,
}  # fmt: skip
"""Operation -> sets of inputs: if all inputs of a set are multiplied by t > 0, so is the output."""


def adjoint(backend: Backend, problem: Problem) -> None:
    """<y, dy> = <x, dx> if y is linear in x: backward is the adjoint of forward.

    By Euler's theorem the same holds for a set of inputs that, scaled together, scale the output.  For
    example, twice the weight and twice the bias of a convolution give twice its output, with or without a
    ReLU and a max-pool after it.
    """
    actual = run_backend(backend, problem)
    y = next(iter(actual.outputs.values()))
    allowed = tolerance(problem.dy.dtype, _terms(problem)) + tolerance(np.float64, problem.dy.size)
    for names in HOMOGENEOUS[problem.case.op]:
        given = [name for name in names if problem.inputs.get(name) is not None]
        pairs = [(problem.inputs[name], actual.gradients[name]) for name in given]
        output, inputs = _product(y, problem.dy), sum(_product(x, dx) for x, dx in pairs)
        bound = allowed * (_norms(y, problem.dy) + sum(_norms(x, dx) for x, dx in pairs))
        require(
            abs(output - inputs) <= bound,
            f"<y, dy> = {output:.12g}, but <{', '.join(given)}> with the gradients is {inputs:.12g}; "
            f"allowed is a difference of {bound:.3g}",
        )


def _terms(problem: Problem) -> int:
    return (
        0 if problem.case.exact else OPERATIONS[problem.case.op].terms(problem.inputs, problem.case.attrs)
    )


def _product(a: Any, b: Any) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def _norms(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a) * np.linalg.norm(b))


def same_bits(backend: Backend, problem: Problem) -> None:
    """A second run gives the same bits."""
    _require_same_bits(run_backend(backend, problem), run_backend(backend, problem), "a second run")


def same_bits_on_threads(backend: Backend, problem: Problem) -> None:
    """1, 2 and 3 threads give the same bits."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = run_backend(backend, problem)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            _require_same_bits(first, run_backend(backend, problem), f"{threads} threads")
    finally:
        torch.set_num_threads(before)


def _require_same_bits(first: Results, second: Results, what: str) -> None:
    for a, b in zip(first, second, strict=True):
        for name, value in a.items():
            same = value is None or value.tobytes() == b[name].tobytes()
            require(same, f"{name}: {what} gives other bits")


def arguments_unchanged(backend: Backend, problem: Problem) -> None:
    """Neither pass changes its arguments, except running statistics, and backward leaves the outputs."""
    case = problem.case
    arrays = to_backend(
        backend, {name: None if a is None else a.copy() for name, a in problem.inputs.items()}
    )
    before = {name: _copy(backend, a) for name, a in arrays.items()}
    outputs, backward = OPERATIONS[case.op].run(backend, arrays, case.attrs)
    outputs_before = {name: _copy(backend, a) for name, a in outputs.items()}
    dy = backend.asarray(problem.dy.copy())
    backward(dy)
    assert_equal(backend.to_numpy(dy), problem.dy, "dy after backward")
    for name, a in outputs.items():
        assert_equal(_copy(backend, a), outputs_before[name], f"{name} after backward")
    for name in arrays.keys() - set(RUNNING):
        assert_equal(_copy(backend, arrays[name]), before[name], f"{name} after both passes")


def _copy(backend: Backend, a: Any) -> np.ndarray | None:
    return None if a is None else backend.to_numpy(a).copy()


def gradients_left_out(backend: Backend, problem: Problem) -> None:
    """A gradient that is not needed is None, and the others keep their bits."""
    everything = run_backend(backend, problem)
    for off in OPERATIONS[problem.case.op].optional_gradients:
        some = run_backend(backend, problem, **{NEED[off]: False})
        require(some.gradients.pop(off) is None, f"d{off}: expected None, as it is not needed")
        _require_same_bits(Results({}, some.gradients), Results({}, everything.gradients), f"no d{off}")


def memory_layouts(backend: Backend, problem: Problem, expected: Results) -> None:
    """Inputs that are strided, reversed, transposed, read-only or of foreign byte order give the same."""
    compare = half_a_unit if is_bfloat16(problem.dy) else torch_autograd
    for layout in LAYOUTS:
        if layout is foreign_byte_order and compare is half_a_unit:
            continue  # ml_dtypes has bfloat16 in the machine's byte order alone
        inputs = {name: None if a is None else layout(a) for name, a in problem.inputs.items()}
        laid_out = problem._replace(inputs=inputs, dy=layout(problem.dy))
        try:
            compare(backend, laid_out, expected)
        except AssertionError as reason:
            raise AssertionError(f"{layout.__name__}: {reason}") from reason


def non_finite_forward(backend: Backend, problem: Problem) -> None:
    """NaN and infinities in each input come out of the forward pass where torch has them."""
    for name in ("x", "weight", "bias", "a", "x0", "residual"):
        if problem.inputs.get(name) is None:
            continue
        changed = _poisoned(problem, name)
        with np.errstate(invalid="ignore"):
            outputs = run_backend(backend, changed).outputs
        first, wanted = next(iter(run_torch(changed).outputs.items()))
        for value in (np.nan, np.inf, -np.inf):
            actual, expected = (
                np.isnan(a) if np.isnan(value) else a == value for a in (outputs[first], wanted)
            )
            assert_equal(actual * 1, expected * 1, f"whether {value} comes out of {name} at {first}")


def non_finite_backward(backend: Backend, problem: Problem) -> None:
    """A non-zero gradient times a non-finite value stays non-finite.

    Every dy is non-zero here, so nothing may be skipped.  More values may be non-finite than in torch:
    where dx is a sum that includes a border of zeros, 0 * inf makes it NaN.
    """
    dy = np.where(np.abs(problem.dy) < 0.1, 0.1, problem.dy).astype(problem.dy.dtype)
    problem = problem._replace(dy=dy)
    not_finite = dy.copy()
    not_finite.reshape(-1)[[0, -1]] = [np.nan, np.inf]
    for name, changed in {
        "x": _poisoned(problem, "x"),
        "weight": _poisoned(problem, "weight"),
        "dy": problem._replace(dy=not_finite),
    }.items():
        with np.errstate(invalid="ignore"):
            actual = run_backend(backend, changed).gradients
        for key, gradient in run_torch(changed).gradients.items():
            kept = ~np.isfinite(actual[key]) | np.isfinite(gradient)
            require(kept.all(), f"d{key}{np.argwhere(~kept)[:1].tolist()}: became finite; {name} is not")


def _poisoned(problem: Problem, name: str) -> Problem:
    """The problem with NaN, inf and -inf in random places of one input.

    The scale of a batch norm gets only NaN: with inf, the result depends on the order of the operations, as
    (x - mean) * inf is inf where x*inf - mean*inf is NaN.
    """
    a = problem.inputs[name].copy()
    rng = np.random.default_rng(len(name) + a.size)
    scale = name == "weight" and problem.case.op.startswith("batch_norm2d")
    values = [np.nan] if scale else [np.nan, np.inf, -np.inf][: a.size]
    a.reshape(-1)[rng.choice(a.size, size=len(values), replace=False)] = values
    return problem._replace(inputs={**problem.inputs, name: a})


def empty_batch(backend: Backend, problem: Problem) -> None:
    """The gradients for a batch of no images are zeros."""
    for name, a in run_backend(backend, problem).gradients.items():
        assert_equal(a, None if a is None else np.zeros_like(a), f"d{name}")


# ---- which kinds a case has --------------------------------------------------------------------------

FIRST_OF_EACH_OP = {case.op: case for case in reversed(CASES)}


def dtypes_of(op: str) -> tuple[str, ...]:
    """The dtypes of the arrays, or of the activations, that the operation takes."""
    if op == "cast":
        return "float32", "bfloat16"
    return DTYPES if op in WITHOUT else (*DTYPES, "bfloat16")


def has_gradients(op: str) -> bool:
    """Whether the operation has a backward pass; fold_batch_norm2d has none."""
    return hasattr(Backend, f"{op}_backward")


def checks_of_case(
    case: Case, dtype: str, backend: str, *, seed: int = 0, full: bool = False
) -> Iterator[Check]:
    """Every check of one case in one dtype on the backend of this name.

    ``full`` checks the memory layouts with every case, and not only with the first of each operation.
    """
    op = case.op
    rounded = dtype == "bfloat16" or op == "cast"
    first = case is FIRST_OF_EACH_OP[op]
    finite = not case.exact and "batch0" not in case.id and op != "softmax_cross_entropy"

    def check(kind: Callable[..., Error | None], *, oracle: bool = False) -> Check:
        def run(b: Backend) -> Error | None:
            problem = drawn(case, dtype, seed)
            return kind(b, problem, solved(case, dtype, seed)) if oracle else kind(b, problem)

        subject = f"{case.id}, draw {seed}" if seed else case.id
        return Check(op, dtype, kind.__name__.replace("_", " "), subject, run)

    if rounded and backend == "cuda" and op == "conv2d" and not (first or full):
        return  # cuda widens what its float32 kernels read, which all these cases have checked
    yield check(half_a_unit if rounded else torch_autograd, oracle=True)
    if rounded and not (first or full):
        return  # what follows does not depend on the dtype, but for the first case of each operation
    if dtype == "float64" and not case.exact and has_gradients(op):
        yield check(central_differences)
    homogeneous = [name for names in HOMOGENEOUS.get(op, ()) for name in names]
    if not rounded and any(case.inputs.get(name) is not None for name in homogeneous):
        yield check(adjoint)
    yield check(same_bits)
    if backend != "numpy":  # the order of sums in NumPy's BLAS depends on the number of threads
        yield check(same_bits_on_threads)
    yield check(arguments_unchanged)
    if OPERATIONS[op].optional_gradients:
        yield check(gradients_left_out)
    if full or first:
        yield check(memory_layouts, oracle=True)
    if finite:
        yield check(non_finite_forward)
    if finite and op in ("conv2d", "dense"):
        yield check(non_finite_backward)
    if "batch0" in case.id:
        yield check(empty_batch)


def case_checks(backend: str, *, full: bool = False) -> Iterator[Check]:
    """Every check of every case on the backend of this name; ``full`` draws each case `DRAWS` times."""
    for case in CASES:
        for dtype in dtypes_of(case.op):
            for seed in range(DRAWS if full and not case.exact else 1):
                yield from checks_of_case(case, dtype, backend, seed=seed, full=full)
