"""What the programs of the learning path share: small pictures of clothes, and a training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minicnn import Sequential, Trainer, data, optim
from minicnn.schedules import Schedule

SIDE = 14


class Clothes(NamedTuple):
    """Images (N,1,14,14) float32 of mean 0 and a spread near 1, their classes (N,) int64, the names."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    names: list[str]


def load(train: int = 2000, test: int = 1000) -> Clothes:
    """Some of the bundled images of 28x28 pixels, at half their size, so that programs take seconds."""
    dataset = data.load("fashion-mnist-sample", limit_train=train, limit_test=test)
    mean, std = np.float32(dataset.mean[0]), np.float32(dataset.std[0])
    x, x_test = ((halved(part.x) - mean) / std for part in (dataset.train, dataset.test))
    return Clothes(x, dataset.train.y, x_test, dataset.test.y, dataset.class_names)


def halved(images: np.ndarray) -> np.ndarray:
    """Each square of 2x2 pixels becomes one pixel, their mean; 0 to 255 becomes 0 to 1."""
    squares = images.reshape(len(images), 1, SIDE, 2, SIDE, 2)
    return (squares.mean(axis=(3, 5)) / 255).astype(np.float32)


def brightness(x: np.ndarray) -> np.ndarray:
    """Images as they are looked at: 0 is black, 1 is white."""
    return np.asarray((x - x.min()) / (x.max() - x.min()))


def anywhere(x: np.ndarray, seed: int, side: int = 22) -> np.ndarray:
    """The same images, each at a random place of a larger frame (N,1,side,side)."""
    rng = np.random.default_rng(seed)
    framed = np.full((len(x), 1, side, side), x.min(), np.float32)
    for image, frame in zip(x, framed, strict=True):
        top, left = rng.integers(0, side - SIDE + 1, 2)
        frame[0, top : top + SIDE, left : left + SIDE] = image[0]
    return framed


def fit(
    model: Sequential, x: np.ndarray, y: np.ndarray, *, lr: float, epochs: int, batch_size: int = 50,
    schedule: Schedule | None = None, after_epoch: Callable[[], None] = lambda: None,
) -> list[float]:  # fmt: skip
    """Train, and return the mean loss of each epoch.  An epoch uses every image once, in a new order."""
    trainer = Trainer(model, optim.SGD(lr=lr, momentum=0.9), schedule=schedule)
    losses = []
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(x))
        batches = [order[k : k + batch_size] for k in range(0, len(x), batch_size)]
        losses.append(float(np.mean([trainer.step(x[batch], y[batch]) for batch in batches])))
        after_epoch()
    return losses


def accuracy(model: Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """The share of the images that the model calls by their right name."""
    return float((model.predict(x).argmax(axis=1) == y).mean())


def weights_of(model: Sequential) -> int:
    """How many numbers the model learns."""
    return sum(values.size for values in model.state_dict().values())


def shown(image: np.ndarray, digits: int = 2) -> list[list[float]]:
    """A matrix as a list of lists, rounded, for the pictures."""
    return [[round(float(v), digits) for v in row] for row in image]
