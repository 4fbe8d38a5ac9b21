"""Tests of assignment 6.  Small whole numbers: every sum is exact, and ties are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicnn.ops.conv2d import conv2d_backward, conv2d_forward
from minicnn.ops.max_pool2d import max_pool2d_backward, max_pool2d_forward
from minicnn.testing.kernels import Kernels, build

CONV = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
POOL = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
SIZES = [(2, 4, 6, 3, 5), (1, 2, 2, 1, 1), (1, 6, 4, 2, 9)]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return build(Path(__file__).with_name("fused.cpp"), tmp_path_factory.mktemp("build"))


class Problem:
    """Inputs in both orders of memory, and what must come of them."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        n, h, w, c, f = self.sizes = sizes
        rng = np.random.default_rng(sum(sizes))
        x, weight, bias = (
            rng.integers(-2, 3, shape).astype(np.float32) for shape in ((n, c, h, w), (f, c, 3, 3), (f,))
        )
        map_ = conv2d_forward(x, weight, bias, **CONV)
        y, argmax = max_pool2d_forward(map_, **POOL)
        dy = rng.integers(-2, 3, y.shape).astype(np.float32)
        dmap = max_pool2d_backward(dy * (y > 0), argmax, input_shape=map_.shape, **POOL)
        _, dweight, _ = conv2d_backward(dmap, x, weight, **CONV)
        self.x, self.bias, self.dy = last(x), bias, last(dy)
        self.weight, self.dweight = (
            np.ascontiguousarray(a.transpose(2, 3, 1, 0)) for a in (weight, dweight)
        )
        self.map, self.y = last(map_), last(np.maximum(y, 0))
        self.winner = last(np.where(y > 0, argmax, 4).astype(np.uint8))


def last(images: np.ndarray) -> np.ndarray:
    """(N,C,H,W) -> (N,H,W,C) in memory."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def filled(like: np.ndarray, value: Any) -> np.ndarray:
    return np.full_like(like, value)


@pytest.mark.task_6_1
@pytest.mark.parametrize("sizes", SIZES)
def test_convolution(kernels: Kernels, sizes: tuple[int, ...]) -> None:
    p = Problem(sizes)
    map_ = filled(p.map, np.nan)
    kernels.convolution(p.x, p.weight, p.bias, map_, *sizes)
    np.testing.assert_array_equal(map_, p.map)


@pytest.mark.task_6_2
@pytest.mark.parametrize("sizes", SIZES)
def test_fused(kernels: Kernels, sizes: tuple[int, ...]) -> None:
    p = Problem(sizes)
    y, winner = filled(p.y, np.nan), filled(p.winner, 9)
    kernels.fused(p.x, p.weight, p.bias, y, winner, *sizes)
    np.testing.assert_array_equal(y, p.y)
    np.testing.assert_array_equal(winner, p.winner)


@pytest.mark.task_6_3
@pytest.mark.parametrize("sizes", SIZES)
def test_weight_gradient(kernels: Kernels, sizes: tuple[int, ...]) -> None:
    p = Problem(sizes)
    dweight = filled(p.dweight, np.nan)
    kernels.weight_gradient(p.x, p.dy, p.winner, dweight, *sizes)
    np.testing.assert_array_equal(dweight, p.dweight)
