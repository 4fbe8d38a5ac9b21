"""The small net that the examples and benchmarks use."""

from __future__ import annotations

from minicnn.backends import Pair
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU, Sequential


def simple_cnn(in_channels: int, num_classes: int, image_size: Pair) -> Sequential:
    """Two 3x3 convolutions (32 and 64 filters), each with ReLU and a 2x2 pool; dense 128, classes."""
    h, w = (size // 4 for size in image_size)
    if min(h, w) < 1:
        raise ValueError(f"[simple_cnn] image_size: expected at least 4, got {image_size}")
    layers = {
        "conv1": Conv2d(in_channels, 32, 3, padding=1),
        "relu1": ReLU(),
        "pool1": MaxPool2d(2),
        "conv2": Conv2d(32, 64, 3, padding=1),
        "relu2": ReLU(),
        "pool2": MaxPool2d(2),
        "flatten": Flatten(),
        "fc1": Dense(64 * h * w, 128),
        "relu3": ReLU(),
        "fc2": Dense(128, num_classes),
    }
    return Sequential(layers, input_shape=(in_channels, *image_size))
