"""A check for each planted bug, and how it is mended."""

from __future__ import annotations

from typing import Any

import numpy as np


def notices_1(ops: Any) -> None:
    """Raise AssertionError if ops.conv2d_forward is wrong."""
    # BEGIN SOLUTION
    x, weight = np.array([[[[5.0]]]]), np.ones((1, 1, 1, 1))
    y = ops.conv2d_forward(x, weight, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    np.testing.assert_array_equal(y[0, 0], [[0, 0, 0], [0, 5, 0], [0, 0, 0]])
    # END SOLUTION


def mended_1() -> tuple[str, str]:
    """The wrong text and the right one."""
    # BEGIN SOLUTION
    return (
        "padded[:, max(ph - 1, 0) : max(ph - 1, 0) + h, pw : pw + w] = x",
        "padded[:, ph : ph + h, pw : pw + w] = x",
    )
    # END SOLUTION


def notices_2(ops: Any) -> None:
    """Raise AssertionError if ops.conv2d_backward is wrong."""
    # BEGIN SOLUTION
    x, weight, dy = np.zeros((1, 1, 1, 3)), np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2))
    dx, _, _ = ops.conv2d_backward(dy, x, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    np.testing.assert_array_equal(dx[0, 0], [[1, 2, 1]])
    # END SOLUTION


def mended_2() -> tuple[str, str]:
    """The wrong text and the right one."""
    # BEGIN SOLUTION
    return "grouped[:, :, rows, columns] = patches", "grouped[:, :, rows, columns] += patches"
    # END SOLUTION


def notices_3(ops: Any) -> None:
    """Raise AssertionError if ops.batch_norm2d_forward is wrong."""
    # BEGIN SOLUTION
    x = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)  # the variance is 1; with eps = 3 the root is 2
    y, *_ = ops.batch_norm2d_forward(x, None, None, None, None, training=True, momentum=0.1, eps=3.0)
    np.testing.assert_allclose(y.ravel(), [-0.5, 0.5])
    # END SOLUTION


def mended_3() -> tuple[str, str]:
    """The wrong text and the right one."""
    # BEGIN SOLUTION
    return "1 / (np.sqrt(var) + x.dtype.type(eps))", "1 / np.sqrt(var + x.dtype.type(eps))"
    # END SOLUTION


def notices_4(ops: Any) -> None:
    """Raise AssertionError if ops.softmax_cross_entropy_forward is wrong."""
    # BEGIN SOLUTION
    loss, _ = ops.softmax_cross_entropy_forward(np.zeros((1, 2)), np.array([0]), label_smoothing=0.5)
    np.testing.assert_allclose(loss, np.log(2))  # the targets add up to 1, whatever the smoothing
    # END SOLUTION


def mended_4() -> tuple[str, str]:
    """The wrong text and the right one."""
    # BEGIN SOLUTION
    return "targets += label_smoothing / max(k - 1, 1)", "targets += label_smoothing / k"
    # END SOLUTION


def notices_5(ops: Any) -> None:
    """Raise AssertionError if ops.max_pool2d_forward is wrong."""
    # BEGIN SOLUTION
    pair = {"kernel_size": (1, 2), "stride": (1, 2), "padding": (0, 0), "dilation": (1, 1)}
    x = np.array([[[[1, np.nan, 4, 3]]]])
    _, argmax = ops.max_pool2d_forward(x, **pair, ceil_mode=False)
    np.testing.assert_array_equal(argmax.ravel(), [1, 0])
    # END SOLUTION


def mended_5() -> tuple[str, str]:
    """The wrong text and the right one."""
    # BEGIN SOLUTION
    return (
        "if argmax is not None and np.isnan(y).all():",
        "if argmax is not None and np.isnan(y).any():",
    )
    # END SOLUTION
