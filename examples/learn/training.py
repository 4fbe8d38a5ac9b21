"""Chapter 6: what decides whether training goes well.  The same small network, one thing changed at a time.

python examples/learn/training.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clothes import Clothes, accuracy, fit, load, weights_of

from minicnn import schedules
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, Layer, ReLU, Sequential

EPOCHS = 4


def network(*, norm: bool = False, weights: float = 1.0) -> Sequential:
    """Three convolutions and one dense layer; ``weights`` multiplies what they start with."""
    layers: list[Layer] = []
    for channels, stride in ((1, 2), (8, 1), (8, 1)):
        layers.append(Conv2d(channels, 8, 3, stride=stride, padding=1))
        layers += [BatchNorm2d(8), ReLU()] if norm else [ReLU()]
    model = Sequential(*layers, Flatten(), Dense(8 * 7 * 7, 10), backend="numpy", seed=0)
    state = model.state_dict()
    scaled = {
        name: values * weights if name.endswith(".weight") and values.ndim > 1 else values
        for name, values in state.items()
    }
    model.load_state_dict(scaled)
    return model


def wide_network(dropout: float) -> Sequential:
    """Two dense layers, with more weights than 300 images can determine."""
    layers = [Flatten(), Dense(196, 128), ReLU(), *([Dropout(dropout)] if dropout else []), Dense(128, 10)]
    return Sequential(*layers, backend="numpy", seed=0)


def few_images(model: Sequential, clothes: Clothes) -> tuple[float, float]:
    """Train on 300 images; the accuracy on these and on the test images."""
    fit(model, clothes.x[:300], clothes.y[:300], lr=0.02, epochs=40)
    return accuracy(model, clothes.x[:300], clothes.y[:300]), accuracy(
        model, clothes.x_test, clothes.y_test
    )


def main() -> dict[str, Any]:
    """Batch sizes, first weights, learning rates, a schedule, batch norm, dropout."""
    clothes = load(train=1000, test=500)
    figures: dict[str, Any] = {"epochs": EPOCHS, "images": len(clothes.x)}

    def curve(label: str, model: Sequential, lr: float, **settings: Any) -> dict[str, Any]:
        with np.errstate(all="ignore"):  # one of these runs is meant to overflow
            losses = fit(model, clothes.x, clothes.y, lr=lr, epochs=EPOCHS, **settings)
        right = accuracy(model, clothes.x_test, clothes.y_test)
        print(f"  {label:22}" + " ".join(f"{loss:6.2f}" for loss in losses) + f"   {right:6.1%} right")
        return {
            "label": label,
            "losses": [loss if np.isfinite(loss) else None for loss in losses],
            "right": right,
        }

    print(f"loss of {EPOCHS} epochs of {len(clothes.x)} images, then the test")
    usual = curve("as it should be", network(), 0.02)
    print("learning rate, in place of 0.02")
    figures["rates"] = [curve("0.0005", network(), 0.0005), usual, curve("0.5", network(), 0.5)]
    print("images in a batch, in place of 50")
    large = curve("250, 4 steps an epoch", network(), 0.02, batch_size=250)
    figures["batches"] = [large, usual, curve("10, 100 steps an epoch", network(), 0.02, batch_size=10)]
    print("first weights")
    figures["weights"] = [curve(f"times {k:g}", network(weights=k), 0.02) for k in (0.0, 0.1, 10.0)]
    print("the same with batch norm")
    figures["norms"] = [curve(f"times {k:g}", network(norm=True, weights=k), 0.02) for k in (0.1, 10.0)]
    print("schedule, from a high rate")
    steps = EPOCHS * len(clothes.x) // 50
    figures["schedules"] = [
        curve("always 0.1", network(), 0.1),
        curve("0.1, falling to 0", network(), 0.1, schedule=schedules.cosine(0.1, steps)),
    ]
    print("300 images and many weights: right in training and in the test")
    figures["dropout"] = {"weights": weights_of(wide_network(0.0))}
    for p in (0.0, 0.5):
        seen, unseen = few_images(wide_network(p), clothes)
        print(f"  dropout {p:g}: {seen:.1%} and {unseen:.1%}")
        figures["dropout"][f"{p:g}".replace(".", "_")] = {"train": seen, "test": unseen}
    return figures


if __name__ == "__main__":
    main()
