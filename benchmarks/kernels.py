"""The operations on the shapes of real networks: what each costs at least, and a call of it for each row.

A row is ``minicnn numpy``, ``minicnn cpp``, ``minicnn cuda``, or a name of `peers.PEERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from peers import PEERS
from shapes import CONVS, DENSES, IMAGES, ConvShape

from minicnn import Backend, get_backend
from minicnn.backends import Conv, Pool

POOL = Pool((2, 2), (2, 2), (0, 0), (1, 1), False)
Arrays = list[Any]


class Kernel(NamedTuple):
    """One operation on one shape in one direction.

    ``flops`` are those of the plain sum, two for a multiply-add; ``bytes`` those of reading each input and
    writing each output once.  ``make(row)`` gives a call that returns the outputs.  ``comparable`` is False
    where float32 implementations may differ much: winners of a max-pool that nearly tie.
    """

    name: str
    flops: int
    bytes: int
    make: Callable[[str], Callable[[], Arrays]]
    comparable: bool = True


def kernels() -> list[Kernel]:
    """All of them."""
    found = []
    for name, shape in CONVS.items():
        for fused in (False, True) if shape.pool else (False,):
            found += [conv(name, shape, fused, backward) for backward in (False, True)]
    found += [dense(name, backward) for name in DENSES for backward in (False, True)]
    for name in IMAGES:
        found += [max_pool(name), batch_norm(name), relu(name)]
    return found


def backend_of(row: str) -> Backend | None:
    """minicnn's backend of this name; None for a peer."""
    return get_backend(row.removeprefix("minicnn ")) if row.startswith("minicnn ") else None


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def no_grad(call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return torch.no_grad()(call)


def conv(name: str, shape: ConvShape, fused: bool, backward: bool) -> Kernel:
    """conv2d, or conv2d_relu_max_pool2d where the network has it."""
    attributes = Conv((shape.stride,) * 2, (shape.padding,) * 2, (1, 1), shape.groups)
    side = shape.out // 2 if fused else shape.out
    x_shape, dy_shape = (shape.n, shape.c, shape.size, shape.size), (shape.n, shape.f, side, side)
    weight_shape = (shape.f, shape.c // shape.groups, shape.kernel, shape.kernel)

    def arrays() -> Arrays:
        return [normal(*sizes) for sizes in (x_shape, weight_shape, (shape.f,), dy_shape)]

    def ours(backend: Backend) -> Callable[[], Arrays]:
        a, w, b, d = map(backend.asarray, arrays())
        if not fused:
            options = attributes._asdict()
            if backward:
                return lambda: list(backend.conv2d_backward(d, a, w, **options))
            return lambda: [backend.conv2d_forward(a, w, b, **options)]
        both = {"conv": attributes, "pool": POOL}
        if not backward:
            return lambda: [backend.conv2d_relu_max_pool2d_forward(a, w, b, **both)[0]]
        _, saved = backend.conv2d_relu_max_pool2d_forward(a, w, b, **both)
        return lambda: list(backend.conv2d_relu_max_pool2d_backward(d, a, w, saved, **both))

    def layer(x: Any, weight: Any, bias: Any) -> torch.Tensor:
        y = F.conv2d(x, weight, bias, *attributes)
        return F.max_pool2d(F.relu(y), 2) if fused else y

    def make(row: str) -> Callable[[], Arrays]:
        backend = backend_of(row)
        if backend is not None:
            return ours(backend)
        x, weight, bias, dy = arrays()
        images = PEERS[row].images
        inputs = [images(x), images(weight), torch.from_numpy(bias)]
        return torch_call(row, layer, inputs, images(dy) if backward else None)

    times = 2 if backward else 1  # x and the weights are read, and in backward their gradients written
    numbers = times * (math.prod(x_shape) + math.prod(weight_shape)) + math.prod(dy_shape)
    size = 4 * numbers + (math.prod(dy_shape) if fused else 0)
    op, direction = "conv2d_relu_max_pool2d" if fused else "conv2d", "backward" if backward else "forward"
    flops = (4 if backward else 2) * shape.multiply_adds
    return Kernel(f"{op}-{name}-{direction}", flops, size, make, comparable=not (fused and backward))


def torch_call(
    row: str, layer: Callable[..., torch.Tensor], inputs: Arrays, dy: torch.Tensor | None
) -> Callable[[], Arrays]:
    """Forward of a function of the inputs, or, with ``dy``, all its gradients."""
    wrapped = PEERS[row].wrap(layer)
    if dy is None:
        run = no_grad(wrapped)
        return lambda: [run(*inputs)]
    for tensor in inputs:
        tensor.requires_grad_()
    y = wrapped(*inputs)
    return lambda: list(torch.autograd.grad(y, inputs, dy, retain_graph=True))


def dense(name: str, backward: bool) -> Kernel:
    n, inputs, outputs = DENSES[name]

    def make(row: str) -> Callable[[], Arrays]:
        arrays = [normal(n, inputs), normal(outputs, inputs), normal(outputs), normal(n, outputs)]
        backend = backend_of(row)
        if backend is None:
            *tensors, dy = map(torch.from_numpy, arrays)
            return torch_call(row, F.linear, tensors, dy if backward else None)
        x, weight, bias, d = map(backend.asarray, arrays)
        if backward:
            return lambda: list(backend.dense_backward(d, x, weight))
        return lambda: [backend.dense_forward(x, weight, bias)]

    times = 2 if backward else 1
    size = 4 * (times * (n * inputs + outputs * inputs) + n * outputs)
    return Kernel(f"dense-{name}-{'backward' if backward else 'forward'}", times * 2 * n * inputs * outputs,
                  size, make)  # fmt: skip


def max_pool(name: str) -> Kernel:
    """With the winners, as in training."""
    n, c, size = IMAGES[name]

    def make(row: str) -> Callable[[], Arrays]:
        x, backend = normal(n, c, size, size), backend_of(row)
        if backend is not None:
            a = backend.asarray(x)
            return lambda: [backend.max_pool2d_forward(a, **POOL._asdict())[0]]
        pool = PEERS[row].wrap(lambda a: F.max_pool2d(a, 2, return_indices=True))
        images = PEERS[row].images(x)
        return lambda: [pool(images)[0]]

    return Kernel(f"max_pool2d-{name}-forward", 0, (4 * 4 + 5) * n * c * size * size // 4, make)


def batch_norm(name: str) -> Kernel:
    """Forward in training."""
    n, c, size = IMAGES[name]
    ones, zeros = np.ones(c, np.float32), np.zeros(c, np.float32)
    options = {"training": True, "momentum": 0.1, "eps": 1e-5}

    def make(row: str) -> Callable[[], Arrays]:
        x, backend = normal(n, c, size, size), backend_of(row)
        if backend is not None:
            a, w, b, mean, var = (backend.asarray(v.copy()) for v in (x, ones, zeros, zeros, ones))
            return lambda: [backend.batch_norm2d_forward(a, w, b, mean, var, **options)[0]]
        mean, var, w, b = (torch.from_numpy(v.copy()) for v in (zeros, ones, ones, zeros))
        return torch_call(
            row, lambda a: F.batch_norm(a, mean, var, w, b, **options), [PEERS[row].images(x)], None
        )

    return Kernel(f"batch_norm2d-{name}-forward", 0, 8 * n * c * size * size, make)


def relu(name: str) -> Kernel:
    n, c, size = IMAGES[name]

    def make(row: str) -> Callable[[], Arrays]:
        x, backend = normal(n, c, size, size), backend_of(row)
        if backend is not None:
            a = backend.asarray(x)
            return lambda: [backend.relu_forward(a)]
        return torch_call(row, F.relu, [PEERS[row].images(x)], None)

    return Kernel(f"relu-{name}-forward", 0, 8 * n * c * size * size, make)


def check(kernel: Kernel, row: str, results: Arrays, expected: Arrays) -> None:
    """Raise AssertionError unless the row's results are the expected ones, of torch."""
    backend = backend_of(row)
    for got, want in zip(results, expected, strict=True):
        array = got.numpy() if backend is None else backend.to_numpy(got)
        assert array.shape == tuple(want.shape), kernel.name
        if kernel.comparable:
            scale = float(want.abs().max())
            np.testing.assert_allclose(
                array, want.numpy(), rtol=1e-3, atol=2e-5 * scale, err_msg=kernel.name
            )
