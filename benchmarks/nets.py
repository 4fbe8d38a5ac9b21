"""The nets that are timed whole, and their twins in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from minicnn import Sequential, models
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU


def vgg_like() -> Sequential:
    """3 -> 64 -> 64, pool, 128 -> 128, pool, 256 -> 256, pool, dense, on 32x32 images."""
    layers = []
    channels = 3
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [Conv2d(channels, width, 3, padding=1), ReLU()]
            channels = width
        layers.append(MaxPool2d(2))
    return Sequential(*layers, Flatten(), Dense(256 * 16, 10), input_shape=(3, 32, 32))


def build(name: str, backend: str) -> Sequential:
    """lenet5, simple_cnn (1x28x28) or vgg_like (3x32x32), with 10 classes."""
    if name == "vgg_like":
        model = vgg_like()
        model.bind(backend)
        return model
    return models.create(name, in_channels=1, num_classes=10, image_size=28, backend=backend)


def torch_step(
    module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, momentum: float = 0.0
) -> Callable[[], float]:
    """A training step of PyTorch on one batch, SGD on cross-entropy, as one plainly writes it."""
    optimizer = torch.optim.SGD(module.parameters(), lr, momentum)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
