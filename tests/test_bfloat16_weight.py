"""The gradients to filters and biases in bfloat16 on the cpp backend's tile unit, native or emulated.

Small integers have exact sums, so there the gradients are those of the NumPy reference in float64, bit for
bit.  Random values show that the emulated unit has the bits of the native one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import LISTED
from safetensors.numpy import load_file, save_file

import minicnn
from minicnn.backends import Backend, Conv, Pool, available_backends, get_backend, tile_unit
from minicnn.backends.numpy_backend import NumpyBackend
from minicnn.ops.cast import bfloat16

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

import torch  # noqa: E402

ROOT = Path(minicnn.__file__).parent.parent
"""Where this process found minicnn, for the process that it starts."""
NUMPY = NumpyBackend()
POOL = Pool((2, 2), (2, 2), (0, 0), (1, 1), False)


class Shape(NamedTuple):
    """A convolution: batch, channels, height, width, filters, kernel, stride, padding, dilation."""

    n: int
    c: int
    h: int
    w: int
    f: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    dilation: int = 1

    @property
    def conv(self) -> Conv:
        pair = (self.stride,) * 2, (self.padding,) * 2, (self.dilation,) * 2
        return Conv(*pair, 1)

    @property
    def filters(self) -> tuple[int, ...]:
        return self.f, self.c, self.kernel, self.kernel


# Whole tiles; several images in a band; a row of taps as channels, with few channels and with odd many; odd
# rows; strides and dilation; much padding; 1x1 with pixels that fill no tile; a gradient in parts; many
# bands in each chunk of the batch; an image in several bands.
SHAPES = [
    Shape(2, 64, 12, 32, 64),
    Shape(5, 32, 4, 4, 48),
    Shape(2, 1, 12, 10, 6, 5, 1, 2),
    Shape(2, 3, 15, 17, 20, 7, 2, 3),
    Shape(2, 37, 5, 9, 33),
    Shape(3, 40, 7, 9, 50, 3, 2, 1),
    Shape(2, 37, 9, 8, 16, 3, 1, 2, 2),
    Shape(1, 17, 2, 3, 5, 5, 1, 4),
    Shape(3, 40, 5, 5, 70, 1, 1, 0),
    Shape(3, 40, 6, 8, 20, 1, 2, 0),
    Shape(1, 100, 4, 4, 70),
    Shape(34, 1, 24, 24, 4),
    Shape(1, 2, 60, 40, 5),
]

Arrays = dict[str, np.ndarray]


def integers(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Mostly zeros, so that sums stay so small that bfloat16 holds them."""
    return rng.choice([-2.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0], size)


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Values whose sums are rounded."""
    return rng.standard_normal(size).astype(bfloat16()).astype(np.float64)


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def gradients(backend: Backend, shape: Shape, draw: Draw, dtype: np.dtype) -> Arrays:
    """dw and db of a convolution, also with ReLU, and with ReLU and max-pool."""
    rng = np.random.default_rng(shape)
    x, weight = draw(rng, (shape.n, shape.c, shape.h, shape.w)), draw(rng, shape.filters) / 2
    parameter = np.float32 if dtype == bfloat16() else dtype
    x, weight = backend.asarray(x.astype(dtype)), backend.asarray(weight.astype(parameter))
    conv, found = shape.conv, {}

    def keep(name: str, results: tuple[object, ...]) -> None:
        for part, value in zip(("dw", "db"), results[1:], strict=True):
            found[f"{name} {part}"] = backend.to_numpy(value)

    y, saved = backend.conv2d_relu_forward(x, weight, None, conv=conv)
    dy = backend.asarray(draw(rng, tuple(y.shape)).astype(dtype))
    keep("conv2d", backend.conv2d_backward(dy, x, weight, **conv._asdict(), need_dx=False))
    keep("relu", backend.conv2d_relu_backward(dy, x, weight, saved, conv=conv, need_dx=False))
    if min(y.shape[2:]) >= 2:
        y, saved = backend.conv2d_relu_max_pool2d_forward(x, weight, None, conv=conv, pool=POOL)
        dy = backend.asarray(draw(rng, tuple(y.shape)).astype(dtype))
        keep("pool", backend.conv2d_relu_max_pool2d_backward(
            dy, x, weight, saved, conv=conv, pool=POOL, need_dx=False
        ))  # fmt: skip
    return found


def all_gradients(draw: Draw) -> Arrays:
    """Those of every shape on the cpp backend."""
    cpp = get_backend("cpp")
    return {
        f"{tuple(shape)} {name}": value
        for shape in SHAPES
        for name, value in gradients(cpp, shape, draw, bfloat16()).items()
    }


SPOILT = Shape(2, 33, 9, 7, 18)


def spoilt(place: str, value: float) -> tuple[np.ndarray, np.ndarray]:
    """x and dy, one with this value in the last row.

    Tiles of the first row of taps, which x's last row does not meet, read it beyond their own rows.
    """
    rng = np.random.default_rng(SPOILT)
    x, dy = (integers(rng, (2, channels, 9, 7)) + 0.5 for channels in (SPOILT.c, SPOILT.f))
    (x if place == "x" else dy)[1, 5, 8, [0, 3, 6]] = value
    return x, dy


def spoilt_gradients(place: str, value: float) -> Arrays:
    """dw and db of a convolution of them on the cpp backend."""
    cpp = get_backend("cpp")
    x, dy = (cpp.asarray(array.astype(bfloat16())) for array in spoilt(place, value))
    weight = cpp.asarray(np.zeros(SPOILT.filters, np.float32))
    _, dw, db = cpp.conv2d_backward(dy, x, weight, **SPOILT.conv._asdict(), need_dx=False)
    return {f"{place} {value} dw": cpp.to_numpy(dw), f"{place} {value} db": cpp.to_numpy(db)}


def assert_same_bits(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """The gradients on the emulated unit, of a process of its own: the unit is chosen once."""
    path = tmp_path_factory.mktemp("emulated") / "gradients.safetensors"
    environment = {**os.environ, "MINICNN_TILE_UNIT": "emulated", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, str(path)], env=environment, check=True, timeout=600)
    return load_file(path)


@pytest.fixture(scope="module")
def exact() -> Arrays:
    """The gradients of integers, by the reference."""
    return {
        f"{tuple(shape)} {name}": value
        for shape in SHAPES
        for name, value in gradients(NUMPY, shape, integers, np.dtype("float64")).items()
    }


def test_gradients_of_integers_are_exact(exact: Arrays) -> None:
    assert_same_bits(all_gradients(integers), exact)


def test_the_emulated_unit_is_exact_too(exact: Arrays, emulated: Arrays) -> None:
    found = {name.removeprefix("integers "): emulated[name] for name in emulated if "integers" in name}
    assert_same_bits(found, exact)


def test_the_emulated_unit_has_the_bits_of_the_native_one(emulated: Arrays) -> None:
    if tile_unit.chosen().kind != "native":
        pytest.skip(f"no tile unit: {tile_unit.chosen()}")
    found = {name.removeprefix("normal "): emulated[name] for name in emulated if "normal" in name}
    assert_same_bits(all_gradients(normal), found)


def test_threads_change_no_bit(threads: Callable[[int], None]) -> None:
    expected = all_gradients(normal)
    for count in (2, 3):
        threads(count)
        assert_same_bits(all_gradients(normal), expected)


@pytest.mark.parametrize("n", [1, 13, 40])
def test_a_dense_layer_is_exact(n: int, rng: np.random.Generator) -> None:
    x, weight, dy = integers(rng, (n, 45)), integers(rng, (35, 45)), integers(rng, (n, 35))
    cpp, found = get_backend("cpp"), []
    for backend, dtype in ((NUMPY, np.dtype("float64")), (cpp, bfloat16())):
        parameter = np.float32 if dtype == bfloat16() else dtype
        inputs = backend.asarray(x.astype(dtype)), backend.asarray(weight.astype(parameter))
        _, saved = backend.dense_relu_forward(*inputs, None)
        gradient = backend.asarray(dy.astype(dtype))
        results = backend.dense_relu_backward(gradient, *inputs, saved, need_dx=False)
        found.append([backend.to_numpy(value) for value in results[1:]])
    for got, expected in zip(found[1], found[0], strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("unit", ["chosen", "emulated"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", ["x", "dy"])
def test_what_is_not_finite_stays_where_it_belongs(
    place: str, value: float, unit: str, emulated: Arrays
) -> None:
    """An infinity meets only the filters and taps whose products have it, as in torch."""
    x, dy = spoilt(place, value)
    found = spoilt_gradients(place, value)
    if unit == "emulated":
        found = {name: emulated[name] for name in found}
    _, dw, db = torch.ops.aten.convolution_backward(
        torch.from_numpy(dy), torch.from_numpy(x), torch.zeros(SPOILT.filters, dtype=torch.float64),
        [SPOILT.f], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, True],
    )  # fmt: skip
    for got, expected in zip(found.values(), (dw, db), strict=True):
        assert np.array_equal(got, expected.numpy(), equal_nan=True)


def main() -> None:
    """Saves the gradients of this process's unit to the path that is the argument."""
    torch.set_num_threads(1)
    found = {f"integers {name}": value for name, value in all_gradients(integers).items()}
    found |= {f"normal {name}": value for name, value in all_gradients(normal).items()}
    for place in ("x", "dy"):
        for value in (np.inf, -np.inf, np.nan):
            found |= spoilt_gradients(place, value)
    save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
