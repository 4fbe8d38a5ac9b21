"""Initial values of parameters, with torch.nn.init's formulas; every draw comes from a NumPy generator.

``fan_in`` is the number of inputs that one output is computed from: C/groups*KH*KW of a convolution, ``in``
of a dense layer.  ``fan_out`` is torch's: F*KH*KW of a convolution, ``out`` of a dense layer.

A weight is drawn from a generator and its own shape (out, in, ...), a bias from its weight's shape.  Values
are float64; the layer that owns them casts them to its dtype.

Sources: He et al. 2015, arXiv:1502.01852 (kaiming); Glorot and Bengio 2010 (xavier)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]
Initializer = Callable[[np.random.Generator, Shape], np.ndarray]
"""Draws a parameter, given the shape of the weight: of the weight itself, or of the bias's weight."""


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...)."""
    cells = math.prod(shape[2:])
    return shape[1] * cells, shape[0] * cells


def kaiming_uniform(rng: np.random.Generator, shape: Shape, *, gain: float = math.sqrt(2)) -> np.ndarray:
    """U(-b, b), b = gain * sqrt(3 / fan_in).  Torch: kaiming_uniform_(mode="fan_in")."""
    bound = gain * math.sqrt(3 / fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def kaiming_normal(
    rng: np.random.Generator, shape: Shape, *, gain: float = math.sqrt(2), mode: str = "fan_in"
) -> np.ndarray:
    """N(0, s^2), s = gain / sqrt(fan); ``mode`` is fan_in or fan_out.  Torch: kaiming_normal_."""
    fan = fans(shape)[("fan_in", "fan_out").index(mode)]
    return rng.normal(0.0, gain / math.sqrt(fan), shape)


def xavier_uniform(rng: np.random.Generator, shape: Shape, *, gain: float = 1.0) -> np.ndarray:
    """U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)).  Torch: xavier_uniform_."""
    bound = gain * math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-bound, bound, shape)


def xavier_normal(rng: np.random.Generator, shape: Shape, *, gain: float = 1.0) -> np.ndarray:
    """N(0, s^2), s = gain * sqrt(2 / (fan_in + fan_out)).  Torch: xavier_normal_."""
    return rng.normal(0.0, gain * math.sqrt(2 / sum(fans(shape))), shape)


def torch_default_weight(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """U(-b, b), b = 1 / sqrt(fan_in): what nn.Conv2d and nn.Linear start from."""
    return kaiming_uniform(rng, shape, gain=math.sqrt(1 / 3))


def torch_default_bias(rng: np.random.Generator, weight_shape: Shape) -> np.ndarray:
    """U(-b, b), b = 1 / sqrt(fan_in), one value per output."""
    bound = 1 / math.sqrt(fans(weight_shape)[0])
    return rng.uniform(-bound, bound, weight_shape[0])


def kaiming_normal_fan_out(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """`kaiming_normal` with mode fan_out: for the convolutions of torchvision's VGGs and ResNets."""
    return kaiming_normal(rng, shape, mode="fan_out")


def normal(std: float) -> Initializer:
    """N(0, std^2).  Torch: normal_(std=std)."""
    return lambda rng, shape: rng.normal(0.0, std, shape)


def zero_bias(_: np.random.Generator, weight_shape: Shape) -> np.ndarray:
    """0, one value per output."""
    return np.zeros(weight_shape[0])
