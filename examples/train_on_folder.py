"""Trains a small network on your own images, in one folder for each class, and tries it on new ones.

python examples/train_on_folder.py pictures unseen/*.png

The commands `minicnn.train` and `minicnn.predict` do the same and much more.  This program shows the parts
that they are made of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from minicnn import Sequential, Trainer, data, optim
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU


def network(channels: int, size: tuple[int, int], classes: int, backend: str) -> Sequential:
    """Two convolutions and two dense layers for images (channels, *size)."""
    features = 32 * (size[0] // 4) * (size[1] // 4)
    return Sequential(
        Conv2d(channels, 16, 3, padding=1), ReLU(), MaxPool2d(2),
        Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2),
        Flatten(), Dense(features, 64), ReLU(), Dense(64, classes),
        backend=backend, seed=0, input_shape=(channels, *size),
    )  # fmt: skip


def main() -> None:
    """Train, test on the fifth of the images that was kept for it, and classify the new ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=Path, nargs="*")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    dataset = data.load(f"folder:{args.folder}", image_size=(28, 28))
    channels, *size = dataset.train.shape
    model = network(channels, (size[0], size[1]), len(dataset.class_names), args.backend)
    print(model)
    trainer = Trainer(model, optim.Adam(lr=2e-3))
    batches = data.Batches(dataset.train, 64, mean=dataset.mean, std=dataset.std, seed=0)
    for epoch in range(args.epochs):
        losses = [trainer.step(x, y) for x, y in batches.epoch(epoch)]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")

    pieces = [data.normalize(x, dataset.mean, dataset.std) for x in dataset.test.pieces()]
    logits = np.concatenate([model.predict(x) for x in pieces])
    accuracy = (logits.argmax(axis=1) == dataset.test.y).mean()
    print(f"{len(dataset.test)} images kept for the test: {accuracy:.1%} right")
    for path in args.images:
        image = data.read_image(path, channels=channels, size=(size[0], size[1]))
        probabilities = model.predict_proba(data.normalize(image[None], dataset.mean, dataset.std))[0]
        best = int(probabilities.argmax())
        print(f"{path}: {dataset.class_names[best]} {probabilities[best]:.1%}")


if __name__ == "__main__":
    main()
