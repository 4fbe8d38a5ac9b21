"""The section "operations" of scripts/gpu.py: single operations of the cuda backend and of eager torch.

Both sides get the same arrays, channels-last.  In bfloat16 the weights of minicnn are float32, as its
contract says, and torch's are bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from minicnn.backends import Conv, Pool, get_backend
from scripts.gpu_timings import PRECISIONS, Keep, Row, Work, allow_tf32, alone, error, small

CONVOLUTIONS = {  # N, C, H, F, kernel, stride
    "conv 3x3, 3 to 64, 32x32": (256, 3, 32, 64, 3, 1),
    "conv 5x5, 6 to 16, 14x14": (256, 6, 14, 16, 5, 1),
    "conv 3x3, 64 to 64, 32x32": (128, 64, 32, 64, 3, 1),
    "conv 3x3, 128 to 128, 16x16": (128, 128, 16, 128, 3, 1),
    "conv 3x3, 256 to 256, 8x8": (128, 256, 8, 256, 3, 1),
    "conv 3x3, 64 to 128, stride 2": (128, 64, 32, 128, 3, 2),
    "conv 1x1, 256 to 64, 16x16": (128, 256, 16, 64, 1, 1),
}
POOL = Pool(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False)


class Operation(NamedTuple):
    """One operation to time.  Both sides return an array, or a tuple of arrays, which are compared."""

    what: str
    phase: str
    ours: Work
    theirs: Work


def operations(keep: Keep, precisions: Sequence[str] = PRECISIONS) -> None:
    """Single operations, forward and backward, in each precision that makes a difference to them."""
    torch.backends.cudnn.benchmark = True
    for precision in precisions:
        allow_tf32(precision == "tf32")
        with get_backend("cuda").multiplying(precision):
            for name, shape in CONVOLUTIONS.items():
                _keep_all(keep, convolution(precision, name, *shape), precision)
            _keep_all(keep, dense(precision), precision)
            if precision != "tf32":  # these multiply nothing
                _keep_all(keep, memory_bound(precision), precision)
    allow_tf32(False)
    _keep_all(keep, loss(), "float32")


def _keep_all(keep: Keep, some: Iterator[Operation], precision: str) -> None:
    for operation in some:
        keep(timed(operation, precision))


def timed(operation: Operation, precision: str) -> Row:
    """The row of an operation.  The results are compared outside the timing."""
    got, expected = operation.ours(), operation.theirs()
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    return {
        "what": operation.what, "phase": operation.phase, "precision": precision,
        "error": max(error(*p) for p in pairs),
        "minicnn": alone(operation.ours), "torch": alone(operation.theirs),
    }  # fmt: skip


def arrays(*shapes: tuple[int, ...], precision: str = "float32") -> list[Any]:
    """Random arrays on the device, in the backend's own memory order."""
    backend, rng = get_backend("cuda"), np.random.default_rng(0)
    made = [backend.asarray(rng.standard_normal(shape).astype("float32")) for shape in shapes]
    return [a.bfloat16() for a in made] if precision == "bfloat16" else made


def convolution(
    precision: str, name: str, n: int, c: int, size: int, f: int, kernel: int, stride: int
) -> Iterator[Operation]:
    """A convolution, and if its stride is 1 also the fused one with ReLU and max-pool."""
    backend = get_backend("cuda")
    n, c, size, f = small(n, 1), small(c, 4), small(size, 6), small(f, 4)
    (x,) = arrays((n, c, size, size), precision=precision)
    weight, bias = arrays((f, c, kernel, kernel), (f,))
    their_weight, their_bias = weight.to(x.dtype), bias.to(x.dtype)
    conv = Conv((stride, stride), (kernel // 2, kernel // 2), (1, 1), 1)
    forward = partial(backend.conv2d_forward, x, weight, bias, **conv._asdict())
    y = forward()
    peer = partial(F.conv2d, x, their_weight, their_bias, *conv[:3])
    yield Operation(name, "forward", forward, peer)
    yield Operation(
        name, "backward",
        partial(backend.conv2d_backward, y, x, weight, **conv._asdict()),
        partial(torch.ops.aten.convolution_backward, y, x, their_weight, [f], *map(list, conv[:3]),
                False, [0, 0], 1, [True] * 3),
    )  # fmt: skip
    if stride == 1:
        yield Operation(
            f"{name}, ReLU, pool", "forward",
            lambda: backend.conv2d_relu_max_pool2d_forward(x, weight, bias, conv=conv, pool=POOL)[0],
            lambda: F.max_pool2d(F.relu(peer()), 2),
        )  # fmt: skip


def dense(precision: str) -> Iterator[Operation]:
    backend = get_backend("cuda")
    n, inputs, outputs = small(256, 4), small(3136, 8), small(128, 5)
    x, dy = arrays((n, inputs), (n, outputs), precision=precision)
    weight, bias = arrays((outputs, inputs), (outputs,))
    their_weight, their_bias = weight.to(x.dtype), bias.to(x.dtype)
    yield Operation(
        "dense 3136 to 128", "forward",
        lambda: backend.dense_forward(x, weight, bias), lambda: F.linear(x, their_weight, their_bias),
    )  # fmt: skip
    yield Operation(
        "dense 3136 to 128", "backward",
        lambda: backend.dense_backward(dy, x, weight), lambda: (dy @ their_weight, dy.T @ x, dy.sum(0)),
    )  # fmt: skip


def memory_bound(precision: str) -> Iterator[Operation]:
    """Operations whose speed memory limits: pooling, batch norm, ReLU, a sum."""
    backend = get_backend("cuda")
    n, c, size = small(128, 2), small(64, 4), small(32, 4)
    x, dy, pooled = arrays(
        (n, c, size, size), (n, c, size, size), (n, c, size // 2, size // 2), precision=precision
    )
    weight, bias, mean, var = arrays((c,), (c,), (c,), (c,))
    var = var.abs() + 1
    pool = POOL._asdict()
    _, winner = backend.max_pool2d_forward(x, **pool)
    _, indices = F.max_pool2d(x, 2, return_indices=True)
    yield Operation(
        "max-pool 2x2", "forward",
        lambda: backend.max_pool2d_forward(x, **pool)[0], lambda: F.max_pool2d(x, 2),
    )  # fmt: skip
    yield Operation(
        "max-pool 2x2", "backward",
        lambda: backend.max_pool2d_backward(pooled, winner, input_shape=tuple(x.shape), **pool),
        lambda: torch.ops.aten.max_pool2d_with_indices_backward(
            pooled, x, [2, 2], [2, 2], [0, 0], [1, 1], False, indices),
    )  # fmt: skip
    yield Operation(
        "batch norm and ReLU", "forward",
        lambda: backend.batch_norm2d_relu_forward(
            x, weight, bias, mean, var, training=True, momentum=0.1, eps=1e-5)[0],
        lambda: F.relu(F.batch_norm(x, None, None, weight, bias, True)),
    )  # fmt: skip
    yield Operation("ReLU", "forward", lambda: backend.relu_forward(x), lambda: F.relu(x))
    yield Operation("add", "forward", lambda: backend.add_forward(x, dy), lambda: x + dy)


def loss() -> Iterator[Operation]:
    backend = get_backend("cuda")
    n, classes = small(256, 4), small(128, 5)
    (logits,) = arrays((n, classes))
    labels = backend.asarray(np.arange(n) % classes)
    yield Operation(
        "softmax cross-entropy", "forward",
        lambda: backend.softmax_cross_entropy_forward(logits, labels)[0],
        lambda: F.cross_entropy(logits, labels),
    )  # fmt: skip
