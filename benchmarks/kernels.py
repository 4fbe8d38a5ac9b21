"""The operations on the shapes of real networks: the least work of each, and a call of it for each row.

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

    ``flops`` counts the plain sum, two for each multiply-add; ``bytes`` counts each input read once and
    each output written once.  ``make(row)`` gives a call that returns the outputs.  ``comparable`` is False
    where correct float32 results may differ much: if two values of a pooling window are nearly equal,
    rounding decides which one gets the gradient.
    """

    name: str
    flops: int
    bytes: int
    make: Callable[[str], Callable[[], Arrays]]
    comparable: bool = True


def kernels() -> list[Kernel]:
    """Every operation on every shape, forward and backward."""
    found = []
    for name, shape in CONVS.items():
        for fused in (False, True) if shape.pool else (False,):
            found += [conv(name, shape, fused, backward) for backward in (False, True)]
    found += [dense(name, backward) for name in DENSES for backward in (False, True)]
    for op in (max_pool, batch_norm, relu):
        found += [op(name, backward) for name in IMAGES for backward in (False, True)]
    return found


def backend_of(row: str) -> Backend | None:
    """The backend of a row such as ``minicnn cpp``; None for a peer."""
    return get_backend(row.removeprefix("minicnn ")) if row.startswith("minicnn ") else None


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def no_grad(call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return torch.no_grad()(call)


def conv(name: str, shape: ConvShape, fused: bool, backward: bool) -> Kernel:
    """conv2d, or conv2d_relu_max_pool2d if ``fused``."""
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

    times = 2 if backward else 1  # x and the weights are read; backward writes their gradients too
    numbers = times * (math.prod(x_shape) + math.prod(weight_shape)) + math.prod(dy_shape)
    size = 4 * numbers + (math.prod(dy_shape) if fused else 0)
    op, direction = "conv2d_relu_max_pool2d" if fused else "conv2d", "backward" if backward else "forward"
    flops = (4 if backward else 2) * shape.multiply_adds
    return Kernel(f"{op}-{name}-{direction}", flops, size, make, comparable=not (fused and backward))


def torch_call(
    row: str, layer: Callable[..., torch.Tensor], inputs: Arrays, dy: torch.Tensor | None
) -> Callable[[], Arrays]:
    """The value of ``layer`` at the inputs, or with ``dy`` the gradients to all of them."""
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


def image_kernel(
    op: str, name: str, backward: bool, ours: Callable[[Backend, Any, Any], Callable[[], Arrays]],
    layer: Callable[..., Any], constants: Arrays, numbers: tuple[float, float],
) -> Kernel:  # fmt: skip
    """An operation on a batch of images that has hardly any multiply-adds.

    ``ours(backend, x, dy)`` is the call with a backend, ``layer(x, *constants)`` is torch's operation, and
    ``numbers`` are the bytes that forward and backward move for each pixel and channel.
    """
    n, c, size = IMAGES[name]

    def make(row: str) -> Callable[[], Arrays]:
        x, backend = normal(n, c, size, size), backend_of(row)
        side = size // 2 if op == "max_pool2d" else size
        dy = normal(n, c, side, side)[::-1].copy()  # reversed, so that its numbers are not those of x
        if backend is not None:
            return ours(backend, backend.asarray(x), backend.asarray(dy))
        images = PEERS[row].images
        inputs = [images(x), *(torch.from_numpy(array.copy()) for array in constants)]
        return torch_call(row, layer, inputs, images(dy) if backward else None)

    direction = "backward" if backward else "forward"
    forward_bytes, backward_bytes = numbers
    moved = (backward_bytes if backward else forward_bytes) * n * c * size**2
    return Kernel(f"{op}-{name}-{direction}", 0, round(moved), make)


def max_pool(name: str, backward: bool) -> Kernel:
    """A 2x2 max-pool that also returns the winners, as in training."""

    def ours(backend: Backend, x: Any, dy: Any) -> Callable[[], Arrays]:
        options = POOL._asdict()
        if not backward:
            return lambda: [backend.max_pool2d_forward(x, **options)[0]]
        _, argmax = backend.max_pool2d_forward(x, **options)
        shape = tuple(x.shape)
        return lambda: [backend.max_pool2d_backward(dy, argmax, input_shape=shape, **options)]

    def layer(x: Any) -> Any:
        return F.max_pool2d(x, 2) if backward else F.max_pool2d(x, 2, return_indices=True)[0]

    # for each value of x, 4 bytes; for each window of four values, a maximum of 4 bytes and a winner of 1
    return image_kernel("max_pool2d", name, backward, ours, layer, [], (4 + 5 / 4, 4 + 5 / 4))


def batch_norm(name: str, backward: bool) -> Kernel:
    """Batch norm as in training."""
    c = IMAGES[name][1]
    ones, zeros = np.ones(c, np.float32), np.zeros(c, np.float32)

    def ours(backend: Backend, x: Any, dy: Any) -> Callable[[], Arrays]:
        w, b, mean, var = (backend.asarray(v.copy()) for v in (ones, zeros, zeros, ones))

        def forward() -> Arrays:
            return list(
                backend.batch_norm2d_forward(x, w, b, mean, var, training=True, momentum=0.1, eps=1e-5)
            )

        if not backward:
            return lambda: forward()[:1]
        _, mu, invstd = forward()
        return lambda: list(backend.batch_norm2d_backward(dy, x, w, mu, invstd, training=True))

    def layer(x: Any, w: Any, b: Any) -> Any:
        return F.batch_norm(x, None, None, w, b, training=True, momentum=0.1, eps=1e-5)

    return image_kernel("batch_norm2d", name, backward, ours, layer, [ones, zeros], (8, 12))


def relu(name: str, backward: bool) -> Kernel:
    def ours(backend: Backend, x: Any, dy: Any) -> Callable[[], Arrays]:
        y = backend.relu_forward(x)
        return lambda: [backend.relu_backward(dy, y) if backward else backend.relu_forward(x)]

    return image_kernel("relu", name, backward, ours, F.relu, [], (8, 12))


def check(kernel: Kernel, row: str, results: Arrays, expected: Arrays) -> None:
    """Raise AssertionError unless the row's results agree with torch's, which are ``expected``."""
    backend = backend_of(row)
    for got, want in zip(results, expected, strict=True):
        array = got.numpy() if backend is None else backend.to_numpy(got)
        assert array.shape == tuple(want.shape), kernel.name
        if kernel.comparable:
            scale = float(want.abs().max())
            np.testing.assert_allclose(
                array, want.numpy(), rtol=1e-3, atol=2e-5 * scale, err_msg=kernel.name
            )
