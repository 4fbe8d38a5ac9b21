"""Batch norm in evaluation folded into the convolution before it.

In evaluation, batch norm maps each filter's output z to s * (z - mean) + beta, s = gamma / sqrt(var + eps).
The filter's output is z = weight * x + bias.  Both together are again a convolution:

    weight' = s * weight,      bias' = s * (bias - mean) + beta

Torch:  torch.nn.utils.fuse_conv_bn_weights
Source: Jacob et al. 2017, arXiv:1712.05877, section 3.2
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes


def fold_batch_norm2d(
    weight: np.ndarray, bias: np.ndarray | None, gamma: np.ndarray | None, beta: np.ndarray | None,
    running_mean: np.ndarray, running_var: np.ndarray, *, eps: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The folded weight (F,C/groups,KH,KW) and bias (F,).

    Args: weight, bias the convolution's, bias (F,) or None · gamma, beta batch norm's weight and bias,
          (F,) or None · running_mean, running_var (F,) · eps batch norm's
    """
    shapes.fold_batch_norm2d(
        "fold_batch_norm2d", weight, eps, bias=bias, gamma=gamma, beta=beta,
        running_mean=running_mean, running_var=running_var,
    )  # fmt: skip
    scale = 1 / np.sqrt(running_var + weight.dtype.type(eps))
    if gamma is not None:
        scale *= gamma
    folded_bias = (-running_mean if bias is None else bias - running_mean) * scale
    if beta is not None:
        folded_bias += beta
    return weight * scale[:, None, None, None], folded_bias
