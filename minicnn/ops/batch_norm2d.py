"""Batch normalisation of images.

For each channel, over its M = N*H*W values, with xhat = (x - mean) * invstd:

    y = weight * xhat + bias,      invstd = 1/sqrt(var + eps)

Training takes mean and var = sum (x - mean)^2 / M from the batch, evaluation from the running
statistics.  Backward, with g = dL/dy:

    dbias = sum g            dweight = sum g * xhat
    evaluation:  dx = weight * invstd * g
    training:    dx = weight * invstd * (g - dbias/M - xhat * dweight/M)

The last line follows because mean and var depend on every x: d mean/dx = 1/M, d var/dx = 2(x - mean)/M.

Torch:  torch.nn.functional.batch_norm
Source: Ioffe and Szegedy 2015, arXiv:1502.03167
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes

_AXES = (0, 1, 2)  # of the channels-last view


def batch_norm2d_forward(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None,
    running_mean: np.ndarray | None, running_var: np.ndarray | None, *,
    training: bool, momentum: float, eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """y (N,C,H,W), and the mean (C,) and invstd (C,) that it was computed with.

    Training changes the running statistics: new = (1 - momentum) * old + momentum * the batch's.  There the
    batch's variance is divided by M - 1, as in torch.

    Args: x (N,C,H,W) · weight, bias, running_mean, running_var (C,) or None · training or evaluation,
          which needs both running statistics · momentum, the batch's share · eps, added to the variance
    """
    shapes.flags("batch_norm2d", training=training)
    shapes.batch_norm2d("batch_norm2d", x, weight, bias, running_mean, running_var, training)
    momentum = shapes.number("batch_norm2d", "momentum", momentum)
    eps = shapes.number("batch_norm2d", "eps", eps)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if training and running is not None:
            shapes.check_in_place("batch_norm2d", name, running)
    images = x.transpose(0, 2, 3, 1)
    if training:
        # Step 1: the mean and the variance of each channel.
        mean, var = _moments(images)
        count = images.size // images.shape[3]
        # Step 2: move the running statistics towards them.
        if count:  # an empty batch changes no running statistics
            _move(running_mean, mean, momentum)
            _move(running_var, var * x.dtype.type(count / max(count - 1, 1)), momentum)
    else:
        assert running_mean is not None  # checked above
        assert running_var is not None
        mean, var = running_mean.copy(), running_var
    invstd = 1 / np.sqrt(var + x.dtype.type(eps))
    # Step 3: normalise, scale and shift.
    y = images - mean
    y *= invstd if weight is None else invstd * weight
    if bias is not None:
        y += bias
    return y.transpose(0, 3, 1, 2), mean, invstd


def batch_norm2d_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray | None, mean: np.ndarray, invstd: np.ndarray, *,
    training: bool, need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:  # fmt: skip
    """(dx (N,C,H,W), dw (C,), db (C,)) for dy (N,C,H,W); None where not needed.

    Without a weight, dw and db are None.  ``mean`` and ``invstd`` are the forward's.
    """
    op = "batch_norm2d_backward"
    shapes.flags(op, training=training, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
    shapes.check_ndarray(op, "running_mean", mean)
    shapes.check_ndarray(op, "running_var", invstd)
    shapes.batch_norm2d(op, x, weight, None, mean, invstd, training)
    shapes.check_array(op, "dy", dy, x.shape, x)
    upstream = dy.transpose(0, 2, 3, 1)
    xhat = (x.transpose(0, 2, 3, 1) - mean) * invstd
    # Step 4: sum dy, and dy times the normalised x.
    db = upstream.sum(axis=_AXES)
    dw = np.einsum("nhwc,nhwc->c", upstream, xhat)
    dx = None
    if need_dx:
        dx = upstream.copy()
        # Step 5: take from dy what normalisation cancels.
        if training and dx.size:
            count = x.dtype.type(dx.size // dx.shape[3])
            dx -= db / count
            xhat *= dw / count
            dx -= xhat
        dx *= invstd if weight is None else invstd * weight
        dx = dx.transpose(0, 3, 1, 2)
    affine = weight is not None
    return dx, dw if affine and need_dw else None, db if affine and need_db else None


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel of (N,H,W,C); NaN for an empty batch."""
    count = images.dtype.type(images.size // images.shape[3])
    with np.errstate(invalid="ignore"):
        mean = images.sum(axis=_AXES) / count
        centred = images - mean
        return mean, np.einsum("nhwc,nhwc->c", centred, centred) / count


def _move(running: np.ndarray | None, value: np.ndarray, momentum: float) -> None:
    """running = (1 - momentum) * running + momentum * value, in place."""
    if running is not None:
        running *= 1 - momentum
        running += momentum * value
