"""LeNet-5 with ReLU and max-pooling.  Source: LeCun et al. 1998."""

from __future__ import annotations

from minicnn.backends import Pair
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU, Sequential


def lenet5(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Two 5x5 convolutions (6 and 16 filters), each with ReLU and a 2x2 pool; dense 120, 84, classes."""
    h, w = ((size // 2 - 4) // 2 for size in image_size)
    if min(h, w) < 1:
        raise ValueError(f"[lenet5] image_size: expected at least 12, got {image_size}")
    layers = {
        "conv1": Conv2d(in_channels, 6, 5, padding=2),
        "relu1": ReLU(),
        "pool1": MaxPool2d(2),
        "conv2": Conv2d(6, 16, 5),
        "relu2": ReLU(),
        "pool2": MaxPool2d(2),
        "flatten": Flatten(),
        "fc1": Dense(16 * h * w, 120),
        "relu3": ReLU(),
        "fc2": Dense(120, 84),
        "relu4": ReLU(),
        "fc3": Dense(84, num_classes),
    }
    return Sequential(layers, input_shape=(in_channels, *image_size))
