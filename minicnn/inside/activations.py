"""What each layer makes of an image: its strongest maps, as the pictures of a network's inside have them.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minicnn.inside.trace import Trace

SAME = ("flatten", "dropout")
"""Operations that change no number in evaluation."""
BEFORE_ACTIVATION = ("conv2d", "batch_norm2d")
"""What is left out first where there are many layers: the activation after it shows what became of it."""
SIDE = 32
"""Numbers in a row of the picture of a vector."""


class Activation(NamedTuple):
    """What one layer gives for one image: some of its maps (h,w), and the channels that they are.

    Of a vector there is one map, its numbers in rows of `SIDE`; what is left of the last row is 0.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    channels: list[int]
    maps: list[np.ndarray]


def activations(trace: Trace, *, maps: int = 12, layers: int = 30) -> list[Activation]:
    """The layers' outputs for the first image of a trace, in the order in which they run.

    Args: maps at most so many of a layer: those with the largest mean of absolute values, in their order
          layers at most so many: where there are more, convolutions and batch norms before an activation
          are left out, and then those between, evenly
    """
    ops = {node.output: node.op for node in trace.graph}
    found = [(name, value) for name, value in trace.named_values().items() if ops[value] not in SAME]
    if len(found) > layers:
        found = [(name, value) for name, value in found if ops[value] not in BEFORE_ACTIVATION]
    if len(found) > layers:
        found = [found[place] for place in np.linspace(0, len(found) - 1, layers).round().astype(int)]
    return [_activation(name, ops[value], trace.value(value)[0], maps) for name, value in found]


def _activation(name: str, op: str, values: np.ndarray, count: int) -> Activation:
    if values.ndim != 3:
        flat = values.ravel()
        rows = np.zeros((math.ceil(flat.size / SIDE), min(flat.size, SIDE)))
        rows.ravel()[: flat.size] = flat
        return Activation(name, op, values.shape, [], [rows])
    strength = np.abs(values).mean(axis=(1, 2))
    channels = sorted(np.argsort(-strength, kind="stable")[:count].tolist())
    return Activation(name, op, values.shape, channels, [values[channel] for channel in channels])
