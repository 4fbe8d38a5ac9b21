"""Tests of assignment 7: each kernel with the threads of a block in three orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicnn.ops.softmax import softmax
from minicnn.testing import assert_close
from minicnn.testing.kernels import Kernels, build


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return build(Path(__file__).with_name("kernels.cu"), tmp_path_factory.mktemp("build"), cuda=True)


@pytest.fixture(params=["forward", "reversed", "7"])
def kernels(request: pytest.FixtureRequest, compiled: Kernels, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    monkeypatch.setenv("MINICNN_CUDA_ORDER", request.param)
    return compiled


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.task_7_1
@pytest.mark.parametrize("shape", [(5, 3), (64, 2), (33, 7)])
def test_bias_relu(kernels: Kernels, shape: tuple[int, int]) -> None:
    x, bias = drawn(*shape), drawn(shape[1])
    y = np.full(x.size + 70, -1, np.float32)
    kernels.bias_relu(x, bias, y, x.size, shape[1])
    assert_close(y[: x.size].reshape(shape), np.maximum(x + bias, 0), 1e-6, "y")
    np.testing.assert_array_equal(y[x.size :], -1, err_msg="values beyond the end were written")


@pytest.mark.task_7_2
@pytest.mark.parametrize("shape", [(3, 64), (2, 10), (2, 150), (1, 1)])
def test_softmax(kernels: Kernels, shape: tuple[int, int]) -> None:
    x = 30 * drawn(*shape) + 100
    y = np.full_like(x, np.nan)
    kernels.softmax(x, y, *shape)
    assert_close(y, softmax(x.astype(np.float64)), 1e-4, "y")


@pytest.mark.task_7_3
@pytest.mark.parametrize("sizes", [(16, 16, 16), (5, 40, 19), (33, 3, 2)])
def test_matmul(kernels: Kernels, sizes: tuple[int, int, int]) -> None:
    n, k, m = sizes
    a, b = drawn(n, k), drawn(k, m)
    y = np.full((n, m), np.nan, np.float32)
    kernels.matmul(a, b, y, n, k, m)
    assert_close(y, a.astype(np.float64) @ b, 1e-5, "y")
