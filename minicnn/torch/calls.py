"""minicnn's operations on torch.nn's modules: whose parameters and attributes they take, and how.

Each function gives what the modules would give one after another; the operation's name says which modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minicnn.backends import available_backends
from minicnn.torch.operations import conv_shape
from minicnn.torch.register import call

DTYPES = (torch.float32, torch.float64)


def pair(value: Any) -> Any:
    """3 -> (3, 3), and (3,) -> (3, 3)."""
    if not isinstance(value, tuple | list):
        return value, value
    return value if len(value) == 2 else (*value, *value)


def conv_attributes(conv: nn.Conv2d) -> tuple[Any, ...]:
    """stride, padding, dilation and groups, as the operations take them."""
    padding: Any = conv.padding
    if isinstance(padding, str):  # torch keeps the sides of "same" in the order of F.pad
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        padding = (top, left, bottom, right)
    return conv.stride, padding, conv.dilation, conv.groups


def pool_attributes(pool: nn.MaxPool2d) -> tuple[Any, ...]:
    """kernel_size, stride, padding, dilation and ceil_mode, as the operations take them."""
    return (
        pair(pool.kernel_size), pair(pool.stride), pair(pool.padding), pair(pool.dilation), pool.ceil_mode
    )  # fmt: skip


def convolve(op: str, x: Tensor, conv: nn.Conv2d, pool: nn.MaxPool2d | None = None) -> Tensor:
    """conv2d, conv2d_relu, or with a pool conv2d_max_pool2d or conv2d_relu_max_pool2d."""
    parameters = conv._parameters
    window = () if pool is None else pool_attributes(pool)
    return call(op, x, parameters["weight"], parameters["bias"], *conv_attributes(conv), *window)


def convolved_shape(x: Tensor, conv: nn.Conv2d) -> tuple[Any, ...]:
    """The shape of a convolution's result."""
    stride, padding, dilation, _ = conv_attributes(conv)
    return tuple(conv_shape(x, conv._parameters["weight"], stride, padding, dilation))


def dense(op: str, x: Tensor, linear: nn.Linear) -> Tensor:
    """dense or dense_relu of x (N,in)."""
    return call(op, x, linear._parameters["weight"], linear._parameters["bias"])


def normalize(
    op: str, x: Tensor, norm: nn.BatchNorm2d, *, residual: Tensor | None = None,
    pool: nn.MaxPool2d | None = None,
) -> Tensor:  # fmt: skip
    """batch_norm2d, batch_norm2d_relu, batch_norm2d_add_relu, batch_norm2d_relu_max_pool2d.

    It moves the running statistics and counts the batch, as the module does.
    """
    parameters, buffers = norm._parameters, norm._buffers
    mean, var, momentum = buffers["running_mean"], buffers["running_var"], norm.momentum
    batches = buffers["num_batches_tracked"]
    if norm.training and norm.track_running_stats and batches is not None:
        batches.add_(1)
        if momentum is None:
            momentum = 1.0 / float(batches)
    training = norm.training or mean is None
    if norm.training and not norm.track_running_stats:
        mean = var = None
    first = (x,) if residual is None else (x, residual)
    window = () if pool is None else pool_attributes(pool)
    return call(
        op, *first, parameters["weight"], parameters["bias"], mean, var, training, momentum or 0.0,
        norm.eps, *window,
    )  # fmt: skip


def convolve_folded(
    op: str, x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, pool: nn.MaxPool2d | None = None
) -> Tensor:
    """As `convolve`, with the batch norm, in evaluation and without gradients, folded into the weight."""
    parameters, buffers = norm._parameters, norm._buffers
    weight, bias = torch.ops.minicnn.fold_batch_norm2d(
        conv._parameters["weight"], conv._parameters["bias"], parameters["weight"], parameters["bias"],
        buffers["running_mean"], buffers["running_var"], norm.eps,
    )  # fmt: skip
    window = () if pool is None else pool_attributes(pool)
    return call(op, x, weight, bias, *conv_attributes(conv), *window)


def max_pool(x: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """max_pool2d."""
    return call("max_pool2d", x, *pool_attributes(pool))


def avg_pool(x: Tensor, pool: nn.AvgPool2d) -> Tensor:
    """avg_pool2d."""
    return call(
        "avg_pool2d", x, pair(pool.kernel_size), pair(pool.stride), pair(pool.padding), pool.ceil_mode,
        pool.count_include_pad,
    )  # fmt: skip


def adaptive_avg_pool(x: Tensor, pool: nn.AdaptiveAvgPool2d) -> Tensor:
    """adaptive_avg_pool2d; None stands for the size of x."""
    size = tuple(x.shape[2 + i] if n is None else n for i, n in enumerate(pair(pool.output_size)))
    return call("adaptive_avg_pool2d", x, size)


def has_backend(device: str) -> bool:
    """Whether minicnn computes on this type of device here."""
    return device in _DEVICES


_DEVICES = ["cpu"]
if torch.cuda.is_available() and available_backends()["cuda"] is None:
    _DEVICES.append("cuda")
