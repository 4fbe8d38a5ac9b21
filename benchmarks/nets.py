"""The nets that are timed as a whole, and a training step of PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from minicnn import Sequential, models
from minicnn.layers import Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU


def vgg_like(**precision: str) -> Sequential:
    """3 -> 64 -> 64, pool, 128 -> 128, pool, 256 -> 256, pool, dense, on 32x32 images."""
    layers = []
    channels = 3
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [Conv2d(channels, width, 3, padding=1), ReLU()]
            channels = width
        layers.append(MaxPool2d(2))
    return Sequential(*layers, Flatten(), Dense(256 * 16, 10), input_shape=(3, 32, 32), **precision)


class Net(NamedTuple):
    """A net's image shape (C,H,W), and the batch sizes that it is timed at, the main one first.

    The learning rate ``lr`` is so large that a step changes the loss by far more than its rounding error,
    and so small that the change is the one that the gradient predicts.  So if two sides have the same loss
    after a step, their gradients agree.
    """

    shape: tuple[int, int, int]
    batches: tuple[int, ...]
    lr: float = 0.01


NETS = {
    "lenet5": Net((1, 28, 28), (128, 1, 8, 32, 256)),
    "simple_cnn": Net((1, 28, 28), (128, 1, 8, 32, 256)),
    "vgg_like": Net((3, 32, 32), (64, 1, 8, 256)),
    "resnet20": Net((3, 32, 32), (128, 1, 8, 32, 256)),
    "resnet18": Net((3, 64, 64), (32, 1, 8), lr=1e-5),
    "googlenet": Net((3, 64, 64), (32, 1, 8), lr=1e-7),
}


def named_nets(description: str | None) -> list[str]:
    """The nets that the command line names, or all of them; ends with an error for any other name."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}")
    names: list[str] = parser.parse_args().nets or list(NETS)
    if unknown := set(names) - set(NETS):
        parser.error(f"expected nets of {', '.join(NETS)}, got {', '.join(sorted(unknown))}")
    return names


def build(name: str, backend: str, **precision: str) -> Sequential:
    """A net of NETS with 10 classes, in float32 unless ``precision=`` says otherwise.

    Its dropout is turned off, since PyTorch would draw other masks.  Revisions that do not know the
    argument can be timed with it too (`revisions`).
    """
    if name == "vgg_like":
        model = vgg_like(**precision)
        model.bind(backend)
        return model
    channels, *size = NETS[name].shape
    model = models.create(
        name, in_channels=channels, num_classes=10, image_size=(size[0], size[1]), backend=backend,
        **precision,
    )  # fmt: skip
    for _, layer in model.named_layers():
        if isinstance(layer, Dropout):
            layer.p = 0.0
    return model


def batch(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((n, *NETS[name].shape), np.float32), rng.integers(0, 10, n)


def torch_step(
    module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, momentum: float = 0.0
) -> Callable[[], float]:
    """A plain training step of PyTorch on one batch: SGD on cross-entropy."""
    optimizer = torch.optim.SGD(module.parameters(), lr, momentum)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
