"""The ways of the cpp backend's convolutions and dense layers in bfloat16.

They are the tile unit of the processor, its emulation in plain C++, AVX512-BF16, and widening.

A process chooses its way once, so that each other way runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BACKENDS

import minicnn
from minicnn import InferenceSession
from minicnn.backends import Backend, compiler, get_backend, tile_unit
from minicnn.graph import run
from minicnn.graph.plans import _before_sums
from minicnn.layers import Conv2d, MaxPool2d, ReLU, Residual, Sequential
from minicnn.testing import CASES
from minicnn.testing.checks import drawn, half_a_unit, solved
from minicnn.testing.oracle import run_backend

pytestmark = pytest.mark.skipif("cpp" not in BACKENDS, reason="the ways of the cpp backend")

ROOT = Path(minicnn.__file__).parent.parent
"""Where this process found minicnn, for the processes that it starts."""
SUMS = [case for case in CASES if case.op.startswith(("conv2d", "dense"))]
CONV: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def bits_of_every_case() -> dict[str, str]:
    """Check every case of a convolution or a dense layer; a hash of its results in bfloat16."""
    cpp = get_backend("cpp")
    check_infinities(cpp)
    check_blocks_of_filters(cpp)
    found = {}
    for case in SUMS:
        problem = drawn(case, "bfloat16")
        half_a_unit(cpp, problem, solved(case, "bfloat16"))
        results = run_backend(cpp, problem)
        arrays = [a for a in (*results.outputs.values(), *results.gradients.values()) if a is not None]
        found[str(case)] = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
    return found


def in_a_process(unit: str, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent,
        env={**os.environ, "MINICNN_TILE_UNIT": unit, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def bits_on(unit: str) -> dict[str, str]:
    program = "import json, test_tile_unit as t; print(json.dumps(t.bits_of_every_case()))"
    done = in_a_process(unit, program)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_the_emulation_has_the_bits_of_the_tile_unit() -> None:
    emulated = bits_on("emulated")
    assert len(emulated) == len(SUMS)
    if tile_unit.chosen().kind != "native":
        pytest.skip(f"cases are right, but there is nothing to compare: {tile_unit.chosen()}")
    assert emulated == bits_of_every_case()


@pytest.mark.parametrize("unit", ["vector", "none"])
def test_other_ways_are_right(unit: str) -> None:
    if unit == "vector" and "avx512_bf16" not in compiler.cpu_features():
        pytest.skip("the processor has no AVX512-BF16")
    assert len(bits_on(unit)) == len(SUMS)


def test_an_unknown_unit_is_refused() -> None:
    program = (
        "import numpy as np, ml_dtypes\nfrom minicnn.backends import get_backend\nb = get_backend('cpp')\n"
        "x, weight = np.ones((1, 1), ml_dtypes.bfloat16), np.ones((1, 1), np.float32)\n"
        "b.dense_forward(b.asarray(x), b.asarray(weight), None)"
    )
    said = in_a_process("amx", program).stderr
    assert "[conv2d] MINICNN_TILE_UNIT: expected auto, none, vector or emulated, got amx" in said


# ---- blocks of filters -------------------------------------------------------------------------------


def check_blocks_of_filters(cpp: Backend) -> None:
    """Sums of small whole numbers are exact, for blocks of filters that fill one tile, two, or parts."""
    for channels, filters in itertools.product((1, 3), (6, 16, 20, 32, 48)):
        rng = np.random.default_rng(filters)
        layers = Sequential(
            Conv2d(channels, filters, 3, padding=1), ReLU(), MaxPool2d(2),
            input_shape=(channels, 7, 20), backend=cpp, precision="bfloat16",
        )  # fmt: skip
        weight, bias = rng.integers(-2, 3, (filters, channels, 3, 3)), rng.integers(-2, 3, filters)
        layers.load_state_dict({"0.weight": weight.astype(np.float32), "0.bias": bias.astype(np.float32)})
        x = rng.integers(-2, 3, (2, channels, 7, 20)).astype(np.float32)
        images, kernels = torch.tensor(x).bfloat16(), torch.tensor(weight).float()
        summed = torch.nn.functional.conv2d(images.float(), kernels, torch.tensor(bias).float(), padding=1)
        y = cpp.conv2d_forward(images, kernels, torch.tensor(bias).float(), **CONV)
        np.testing.assert_array_equal(cpp.to_numpy(y).astype(np.float32), summed.numpy())
        y = cpp.conv2d_forward(images, kernels, torch.tensor(bias).float(), **{**CONV, "stride": (2, 2)})
        np.testing.assert_array_equal(cpp.to_numpy(y).astype(np.float32), summed[:, :, ::2, ::2].numpy())
        pooled = torch.nn.functional.max_pool2d(summed.relu(), 2).numpy()
        np.testing.assert_array_equal(layers.predict(x), pooled)


def test_every_block_of_filters_is_stored_whole() -> None:
    check_blocks_of_filters(get_backend("cpp"))


# ---- sums that convolutions add ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [5, 16, 20, 40])
@pytest.mark.parametrize("relu", [True, False])
def test_a_convolution_adds_the_shortcut_with_the_bits_of_two_operations(channels: int, relu: bool) -> None:
    body = Sequential(
        Conv2d(channels, channels, 3, padding=1), ReLU(), Conv2d(channels, channels, 3, padding=1)
    )
    model = Sequential(
        Residual(body, activation=ReLU() if relu else None), input_shape=(channels, 6, 20), backend="cpp",
        precision="bfloat16",
    )  # fmt: skip
    graph = model.graph(training=False)
    assert [conv.op for conv in _before_sums(graph).values()] == ["conv2d"]
    made = InferenceSession(model, precision="bfloat16")
    x = np.random.default_rng(channels).standard_normal((3, channels, 6, 20)).astype(np.float32)
    for value in (0.5, np.inf):  # not finite: the sums are computed another way, and then added to
        x[1, 0, 2, 2] = value
        expected = run.predict(graph, model.backend, x, batch_size=3, dtype=model.dtype)
        np.testing.assert_array_equal(made.run(x), expected)


# ---- max-pools without places ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 40])
@pytest.mark.parametrize("nan", [False, True])
def test_maxima_alone_are_those_of_torch(channels: int, nan: bool) -> None:
    """Compared as whole numbers: of both signs, zeros, infinities, windows in the padding; NaN come out."""
    rng = np.random.default_rng(channels)
    values = torch.tensor(
        rng.standard_normal((2, channels, 9, 7)) * 10.0 ** rng.integers(-30, 30, 1)
    ).bfloat16()
    for value in (0.0, -0.0, np.inf, -np.inf, *([np.nan, -np.nan] if nan else [])):
        values[torch.tensor(rng.random(values.shape) < 0.2)] = value
    for size, stride, padding, dilation in ((3, 1, 1, 1), (3, 2, 0, 1), (2, 2, 1, 2)):
        y, places = get_backend("cpp").max_pool2d_forward(
            values, kernel_size=(size, size), stride=(stride, stride), padding=(padding, padding),
            dilation=(dilation, dilation), ceil_mode=True, need_argmax=False,
        )  # fmt: skip
        assert places is None
        expected = torch.nn.functional.max_pool2d(
            values.float(), size, stride, padding, dilation, ceil_mode=True
        )
        np.testing.assert_array_equal(get_backend("cpp").to_numpy(y).astype(np.float32), expected.numpy())


# ---- infinities --------------------------------------------------------------------------------------


def check_infinities(cpp: Backend) -> None:
    """What is not finite comes out where torch has it, for filters that leave parts of a tile unused."""
    for channels, value in ((1, np.inf), (3, np.inf), (3, np.nan), (16, np.inf), (40, np.nan)):
        rng = np.random.default_rng(channels)
        x = rng.standard_normal((2, channels, 7, 18)).astype(np.float32)
        x[0, 0, 0, 4] = x[1, -1, 6, 17] = value
        weight = rng.standard_normal((20, channels, 3, 3)).astype(np.float32)
        images, filters = torch.tensor(x).bfloat16(), torch.tensor(weight)
        y = cpp.to_numpy(cpp.conv2d_forward(images, filters, None, **CONV)).astype(float)
        expected = torch.nn.functional.conv2d(images.double(), filters.bfloat16().double(), padding=1)
        np.testing.assert_array_equal(np.isnan(y), expected.isnan(), err_msg=f"{channels} channels")
        np.testing.assert_array_equal(np.isinf(y), expected.isinf(), err_msg=f"{channels} channels")


def test_what_is_not_finite_comes_out_where_torch_has_it() -> None:
    check_infinities(get_backend("cpp"))


def test_an_infinite_gradient_reaches_its_pixels_alone() -> None:
    cpp = get_backend("cpp")
    x = torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)
    dy = torch.ones(1, 5, 8, 8, dtype=torch.bfloat16)
    dy[0, 2, 3, 3] = torch.inf
    dx, _, db = cpp.conv2d_backward(dy, x, torch.ones(5, 3, 3, 3), **CONV)
    infinite = np.isinf(cpp.to_numpy(dx).astype(float))
    assert infinite[:, :, 2:5, 2:5].all()
    assert infinite.sum() == 3 * 9
    assert np.isinf(cpp.to_numpy(db)).tolist() == [False, False, True, False, False]


# ---- what doctor says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "granted", "kind", "reason"),
    [
        (["amx_bf16", "amx_tile", "avx512_bf16"], True, "native", "lets it be used"),
        (["amx_bf16", "amx_tile", "avx512_bf16"], False, "vector", "does not let AMX be used"),
        (["avx512_bf16"], True, "vector", "the processor has no AMX"),
        (["avx2"], True, "none", "has no AMX, and there is no AVX512-BF16"),
    ],
)
def test_the_reason_of_the_choice(
    monkeypatch: pytest.MonkeyPatch, features: list[str], granted: bool, kind: str, reason: str
) -> None:
    monkeypatch.delenv("MINICNN_TILE_UNIT", raising=False)
    monkeypatch.setattr(compiler, "cpu_features", lambda: features)
    monkeypatch.setattr(tile_unit, "_may_use_tiles", lambda: granted)
    assert tile_unit.chosen().kind == kind
    assert reason in tile_unit.chosen().reason
    monkeypatch.setenv("MINICNN_TILE_UNIT", "emulated")
    assert tile_unit.chosen() == ("emulated", "MINICNN_TILE_UNIT is emulated")
    monkeypatch.setenv("MINICNN_TILE_UNIT", "amx")
    with pytest.raises(ValueError, match="expected auto, none, vector, emulated, got amx"):
        tile_unit.chosen()
