"""Operations on the shapes of real networks: a group per op, shape and direction, a row per backend
and per way of running PyTorch.  Every result is checked against PyTorch's outside the timed region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peak import peak_gflops
from peers import PEERS
from shapes import CONVS, DENSES, IMAGES, ConvShape

from minicnn import Backend
from minicnn.backends import Conv, Pool

THREADS = 2
POOL = Pool((2, 2), (2, 2), (0, 0), (1, 1), False)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def run(benchmark: Any, group: str, row: str, call: Callable[[], Any], flops: int = 0) -> Any:
    """Time a call and note its GFLOP/s; returns what it returned."""
    benchmark.group = group
    benchmark.extra_info["row"] = row
    result = benchmark.pedantic(call, rounds=10, warmup_rounds=2)
    if flops and benchmark.stats is not None:  # None with --benchmark-disable
        rate = flops / benchmark.stats.stats.median / 1e9
        benchmark.extra_info["GFLOP/s"] = round(rate, 1)
        benchmark.extra_info["share of FMA peak"] = round(rate / peak_gflops(THREADS), 3)
    return result


def check(result: Any, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    np.testing.assert_allclose(result, expected.detach().numpy(), rtol=1e-3, atol=2e-5 * scale)


def conv_problem(shape: ConvShape) -> tuple[np.ndarray, np.ndarray, np.ndarray, Conv]:
    x = normal(shape.n, shape.c, shape.size, shape.size)
    weight = normal(shape.f, shape.c // shape.groups, shape.kernel, shape.kernel)
    stride, padding = (shape.stride,) * 2, (shape.padding,) * 2
    return x, weight, normal(shape.f), Conv(stride, padding, (1, 1), shape.groups)


def torch_conv(x: Any, weight: Any, bias: Any, conv: Conv, pooled: bool) -> torch.Tensor:
    y = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return F.max_pool2d(F.relu(y), 2) if pooled else y


CASES = [
    (name, fused) for name, shape in CONVS.items() for fused in ((False, True) if shape.pool else (False,))
]


@pytest.mark.parametrize(("name", "fused"), CASES)
class TestConv:
    """conv2d, and conv2d_relu_max_pool2d where the network has it."""

    @staticmethod
    def group(name: str, fused: bool, direction: str) -> str:
        return f"{'conv2d_relu_max_pool2d' if fused else 'conv2d'}-{name}-{direction}"

    def test_forward(self, benchmark: Any, backend: Backend, name: str, fused: bool) -> None:
        shape = CONVS[name]
        x, weight, bias, conv = conv_problem(shape)
        a, w, b = (backend.asarray(v) for v in (x, weight, bias))

        def call() -> Any:
            if fused:
                return backend.conv2d_relu_max_pool2d_forward(a, w, b, conv=conv, pool=POOL)[0]
            return backend.conv2d_forward(a, w, b, **conv._asdict())

        y = run(benchmark, self.group(name, fused, "forward"), backend.label, call, 2 * shape.multiply_adds)
        check(backend.to_numpy(y), torch_conv(*map(torch.from_numpy, (x, weight, bias)), conv, fused))

    def test_backward(self, benchmark: Any, backend: Backend, name: str, fused: bool) -> None:
        shape = CONVS[name]
        x, weight, bias, conv = conv_problem(shape)
        tensors = [torch.from_numpy(v).requires_grad_() for v in (x, weight, bias)]
        ty = torch_conv(*tensors, conv, fused)
        dy = np.random.default_rng(1).standard_normal(tuple(ty.shape), np.float32)
        a, w, b, d = (backend.asarray(v) for v in (x, weight, bias, dy))
        saved = None
        if fused:
            _, saved = backend.conv2d_relu_max_pool2d_forward(a, w, b, conv=conv, pool=POOL)

        def call() -> Any:
            if fused:
                return backend.conv2d_relu_max_pool2d_backward(d, a, w, saved, conv=conv, pool=POOL)
            return backend.conv2d_backward(d, a, w, **conv._asdict())

        flops = 4 * shape.multiply_adds
        grads = run(benchmark, self.group(name, fused, "backward"), backend.label, call, flops)
        if not fused:  # winners that nearly tie may differ between float32 implementations
            for got, want in zip(
                grads, torch.autograd.grad(ty, tensors, torch.from_numpy(dy)), strict=True
            ):
                check(backend.to_numpy(got), want)

    @pytest.mark.parametrize("peer", PEERS)
    def test_torch_forward(self, benchmark: Any, peer: str, name: str, fused: bool) -> None:
        shape = CONVS[name]
        x, weight, bias, conv = conv_problem(shape)
        a, w = map(PEERS[peer].images, (x, weight))
        b = torch.from_numpy(bias)
        forward = PEERS[peer].wrap(torch_conv)
        with torch.no_grad():
            y = run(
                benchmark, self.group(name, fused, "forward"), peer,
                lambda: forward(a, w, b, conv, fused), 2 * shape.multiply_adds,
            )  # fmt: skip
        assert y.shape[:2] == (shape.n, shape.f)

    @pytest.mark.parametrize("peer", PEERS)
    def test_torch_backward(self, benchmark: Any, peer: str, name: str, fused: bool) -> None:
        shape = CONVS[name]
        x, weight, bias, conv = conv_problem(shape)
        images = map(PEERS[peer].images, (x, weight))
        tensors = [v.requires_grad_() for v in (*images, torch.from_numpy(bias))]
        y = PEERS[peer].wrap(torch_conv)(*tensors, conv, fused)
        dy = torch.randn_like(y)
        grads = run(
            benchmark, self.group(name, fused, "backward"), peer,
            lambda: torch.autograd.grad(y, tensors, dy, retain_graph=True), 4 * shape.multiply_adds,
        )  # fmt: skip
        assert grads[0].shape == x.shape


@pytest.mark.parametrize("name", DENSES)
class TestDense:
    def test_forward(self, benchmark: Any, backend: Backend, name: str) -> None:
        n, inputs, outputs = DENSES[name]
        x, weight, bias = normal(n, inputs), normal(outputs, inputs), normal(outputs)
        a, w, b = (backend.asarray(v) for v in (x, weight, bias))
        group, flops = f"dense-{name}-forward", 2 * n * inputs * outputs
        y = run(benchmark, group, backend.label, lambda: backend.dense_forward(a, w, b), flops)
        check(backend.to_numpy(y), F.linear(*map(torch.from_numpy, (x, weight, bias))))

    @pytest.mark.parametrize("peer", ["torch eager", "torch.compile"])
    def test_torch_forward(self, benchmark: Any, peer: str, name: str) -> None:
        n, inputs, outputs = DENSES[name]
        forward = PEERS[peer].wrap(F.linear)
        a, w, b = map(torch.from_numpy, (normal(n, inputs), normal(outputs, inputs), normal(outputs)))
        flops = 2 * n * inputs * outputs
        y = run(benchmark, f"dense-{name}-forward", peer, lambda: forward(a, w, b), flops)
        assert y.shape == (n, outputs)


@pytest.mark.parametrize("name", IMAGES)
class TestMaps:
    """Operations that are bound by memory: pools, ReLU, batch norm."""

    def test_max_pool(self, benchmark: Any, backend: Backend, name: str) -> None:
        n, c, size = IMAGES[name]
        x = normal(n, c, size, size)
        a = backend.asarray(x)
        y = run(
            benchmark, f"max_pool2d-{name}-forward", backend.label,
            lambda: backend.max_pool2d_forward(a, **POOL._asdict())[0],
        )  # fmt: skip
        np.testing.assert_array_equal(backend.to_numpy(y), F.max_pool2d(torch.from_numpy(x), 2).numpy())

    @pytest.mark.parametrize("peer", PEERS)
    def test_torch_max_pool(self, benchmark: Any, peer: str, name: str) -> None:
        n, c, size = IMAGES[name]
        a = PEERS[peer].images(normal(n, c, size, size))
        forward = PEERS[peer].wrap(lambda a: F.max_pool2d(a, 2, return_indices=True))
        y = run(benchmark, f"max_pool2d-{name}-forward", peer, lambda: forward(a)[0])
        assert y.shape[2] == size // 2

    def test_batch_norm(self, benchmark: Any, backend: Backend, name: str) -> None:
        n, c, size = IMAGES[name]
        x, ones, zeros = normal(n, c, size, size), np.ones(c, np.float32), np.zeros(c, np.float32)
        a, w, b = (backend.asarray(v) for v in (x, ones, zeros))
        mean, var = backend.asarray(zeros.copy()), backend.asarray(ones.copy())

        def call() -> Any:
            return backend.batch_norm2d_forward(a, w, b, mean, var, training=True, momentum=0.1, eps=1e-5)[
                0
            ]

        y = run(benchmark, f"batch_norm2d-{name}-forward", backend.label, call)
        check(backend.to_numpy(y), F.batch_norm(torch.from_numpy(x), None, None, training=True))

    @pytest.mark.parametrize("peer", PEERS)
    def test_torch_batch_norm(self, benchmark: Any, peer: str, name: str) -> None:
        n, c, size = IMAGES[name]
        a = PEERS[peer].images(normal(n, c, size, size))
        w, b = torch.ones(c), torch.zeros(c)
        forward = PEERS[peer].wrap(lambda a, w, b: F.batch_norm(a, None, None, w, b, training=True))
        y = run(benchmark, f"batch_norm2d-{name}-forward", peer, lambda: forward(a, w, b))
        assert y.shape == a.shape
