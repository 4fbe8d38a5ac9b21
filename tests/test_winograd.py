"""Winograd's way of the cpp backend's wide 3x3 convolutions in float32: how far it is from the exact
result, and that it keeps what the direct way promises: the same bits for any number of threads, exact
results for small integers, NaN and infinity where torch has them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LISTED

from minicnn.backends import Backend, Conv, Pool, available_backends, get_backend
from minicnn.backends.numpy_backend import NumpyBackend

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

import torch  # noqa: E402

NUMPY = NumpyBackend()
CONV, POOL = Conv((1, 1), (1, 1), (1, 1), 1), Pool((2, 2), (2, 2), (0, 0), (1, 1), False)
ATTRIBUTES = CONV._asdict()

# Images, channels, filters, height, width: full vectors of channels and ragged ones, whole tiles of 4x4
# and parts of them; then the weight gradient's other ways: many tiles in several passes, and in chunks of
# the batch.
WIDE = [(2, 64, 64, 32, 32), (2, 128, 128, 16, 16), (4, 256, 256, 8, 8)]
SHAPES = [*WIDE, (3, 40, 72, 15, 13), (1, 65, 48, 30, 22), (5, 72, 56, 24, 26), (9, 24, 40, 32, 30)]

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def cpp() -> Backend:
    return get_backend("cpp")


def problem(draw: Callable[[tuple[int, ...]], np.ndarray], shape: tuple[int, ...]) -> Arrays:
    """x, weight, bias and dy in float32."""
    n, c, f, h, w = shape
    x, weight, bias, dy = ((n, c, h, w), (f, c, 3, 3), (f,), (n, f, h, w))
    return tuple(draw(size).astype(np.float32) for size in (x, weight, bias, dy))  # type: ignore[return-value]


def passes(b: Backend, arrays: Arrays) -> list[np.ndarray]:
    """y, dx and dw."""
    x, weight, bias, dy = map(b.asarray, arrays)
    y = b.conv2d_forward(x, weight, bias, **ATTRIBUTES)
    dx, dw, _ = b.conv2d_backward(dy, x, weight, **ATTRIBUTES)
    return [b.to_numpy(a) for a in (y, dx, dw)]


def exact(arrays: Arrays) -> list[np.ndarray]:
    """y, dx and dw by torch in float64."""
    x, weight, bias, dy = (torch.from_numpy(a.astype(np.float64)) for a in arrays)
    y = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return [a.numpy() for a in (y, dx, dw)]


def errors(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The root mean square error and the largest one, as parts of the exact result's root mean square."""
    difference, size = np.abs(actual - expected), np.sqrt(np.square(expected).mean())
    return float(np.sqrt(np.square(difference).mean()) / size), float(difference.max() / size)


@pytest.mark.parametrize("shape", WIDE)
def test_error_against_float64(cpp: Backend, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Errors add up at random over the channels, so that they grow with the root of their number.

    Measured with 64, 128 and 256 channels: y and dx are off by 1.7e-6, 2.4e-6 and 3.5e-6 in the mean, by
    3.2e-5, 4.2e-5 and 6.8e-5 at worst, which is 1.8 and 36 float32 epsilons times the root; dw by less.
    A direct sum in float32 (NumPy's) is off by 1.4e-7 to 3.6e-7 in the mean and 1e-6 to 3e-6 at worst:
    Winograd costs one decimal digit of seven, 12 times at most.  The bounds leave a factor of two.
    """
    arrays, unit = problem(rng.standard_normal, shape), np.finfo(np.float32).eps * np.sqrt(shape[1])
    results = zip(passes(cpp, arrays), passes(NUMPY, arrays), exact(arrays), strict=True)
    for winograd, direct, expected in results:
        mean, worst = errors(winograd, expected)
        assert mean < 4 * unit
        assert worst < 70 * unit
        assert mean < 24 * errors(direct, expected)[0]


ERRORS_OF_LARGE_SUMS = """
from test_winograd import errors, exact, passes, problem
import numpy as np
from minicnn.backends import get_backend

rng = np.random.default_rng(0)
arrays = problem(lambda size: 64 * rng.standard_normal(size), (2, 64, 64, 32, 32))
print([errors(a, e)[0] for a, e in zip(passes(get_backend("cpp"), arrays), exact(arrays), strict=True)])
"""


def errors_of_large_sums(winograd: str) -> list[float]:
    """The root mean square errors of y, dx and dw, in a process with this MINICNN_WINOGRAD."""
    done = subprocess.run(
        [sys.executable, "-c", ERRORS_OF_LARGE_SUMS], check=True, capture_output=True, text=True,
        env={**os.environ, "MINICNN_WINOGRAD": winograd}, cwd=Path(__file__).parent,
    )  # fmt: skip
    return list(map(float, done.stdout.strip().strip("[]").split(",")))


def test_turning_winograd_off_gives_the_error_of_direct_sums() -> None:
    for on, off in zip(errors_of_large_sums("1"), errors_of_large_sums("0"), strict=True):
        assert on > 2.5 * off
        assert off < 1e-6


def test_the_switch_takes_0_or_1_alone() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        errors_of_large_sums("off")
    assert caught.value.stderr.rstrip().endswith(
        "ValueError: [conv2d] MINICNN_WINOGRAD: expected 0 or 1, got off"
    )


def fused(b: Backend, arrays: Arrays) -> dict[str, bytes]:
    """The bytes of all results of the plain convolution and of those with ReLU and max-pool."""
    x, weight, bias, dy = map(b.asarray, arrays)
    results: dict[str, tuple[Any, ...]] = {
        "conv": (b.conv2d_forward(x, weight, bias, **ATTRIBUTES),),
        "conv_backward": b.conv2d_backward(dy, x, weight, **ATTRIBUTES),
    }
    y, saved = b.conv2d_relu_forward(x, weight, bias, conv=CONV)
    results["relu"] = (y, *b.conv2d_relu_backward(dy, x, weight, saved, conv=CONV))
    y, saved = b.conv2d_relu_max_pool2d_forward(x, weight, bias, conv=CONV, pool=POOL)
    results["pool"] = (y, *b.conv2d_relu_max_pool2d_backward(y, x, weight, saved, conv=CONV, pool=POOL))
    return {
        f"{name}[{i}]": b.to_numpy(array).tobytes()
        for name, value in results.items()
        for i, array in enumerate(value)
    }


@pytest.mark.parametrize(("shape", "inputs"), [((4, 256, 256, 8, 8), 20), *((s, 2) for s in SHAPES)])
def test_same_bits_for_any_number_of_threads(
    cpp: Backend, rng: np.random.Generator, threads: Callable[[int], None],
    shape: tuple[int, ...], inputs: int,
) -> None:  # fmt: skip
    for _ in range(inputs):
        arrays = problem(rng.standard_normal, shape)
        threads(1)
        expected = fused(cpp, arrays)
        for count in (2, 3, 8):
            threads(count)
            actual = fused(cpp, arrays)
            assert [name for name in expected if actual[name] != expected[name]] == [], f"{count} threads"


@pytest.mark.parametrize("shape", SHAPES)
def test_small_integers_are_exact(cpp: Backend, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    arrays = problem(lambda size: rng.integers(-3, 4, size), shape)
    for actual, expected in zip(passes(cpp, arrays), exact(arrays), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_finite_stays_where_it_is(
    cpp: Backend, rng: np.random.Generator, shape: tuple[int, ...], bad: float
) -> None:
    """One bad pixel reaches the nine outputs around it, and no others of its tile."""
    n, c, _, h, w = shape
    x, weight, bias, dy = problem(rng.standard_normal, shape)
    for row, col in ((0, 0), (h // 2, w // 2), (h - 1, w - 1)):
        spoilt = x.copy()
        spoilt[n - 1, c // 2, row, col] = bad
        y = cpp.to_numpy(cpp.conv2d_forward(*map(cpp.asarray, (spoilt, weight, bias)), **ATTRIBUTES))
        expected = exact((spoilt, weight, bias, dy))[0]
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        assert not np.isfinite(y).all()
