"""Chapter 2: a linear classifier learns one template for each class; it fails when things move.

python examples/learn/linear.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clothes import accuracy, anywhere, brightness, fit, load, shown, weights_of

from minicnn.layers import Dense, Flatten, Sequential


def linear_classifier(pixels: int, classes: int) -> Sequential:
    """score of class k = bias k + sum over all pixels of weight k,pixel * pixel."""
    return Sequential(Flatten(), Dense(pixels, classes), backend="numpy", seed=0)


def main() -> dict[str, Any]:
    """Train on images in the middle, move the images, and train again on images anywhere."""
    clothes = load()
    model = linear_classifier(clothes.x[0].size, 10)
    losses = fit(model, clothes.x, clothes.y, lr=0.01, epochs=10)
    print(
        f"{weights_of(model)} numbers to learn; loss {losses[0]:.2f} in the first epoch, "
        f"{losses[-1]:.2f} in the last"
    )
    scores = model.predict(clothes.x_test[:1])[0]
    print(
        "scores of one image: "
        + ", ".join(f"{name} {s:.1f}" for name, s in zip(clothes.names, scores, strict=True))
    )
    moved = {}
    for pixels in range(4):
        moved[pixels] = accuracy(model, np.roll(clothes.x_test, pixels, axis=3), clothes.y_test)
        print(f"moved {pixels} pixels to the right: {moved[pixels]:.1%} right")

    x, x_test = anywhere(clothes.x, seed=1), anywhere(clothes.x_test, seed=2)
    wide = linear_classifier(x[0].size, 10)
    fit(wide, x, clothes.y, lr=0.005, epochs=15)
    placed = accuracy(wide, x_test, clothes.y_test)
    print(f"trained and tested on images at any place of a larger frame: {placed:.1%} right")
    templates = model.state_dict()["1.weight"].reshape(10, *clothes.x.shape[2:])
    return {
        "weights": weights_of(model),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "moved": [moved[k] for k in range(4)],
        "anywhere": placed,
        "wide_weights": weights_of(wide),
        "templates": [shown(t / np.abs(templates).max()) for t in templates],
        "names": clothes.names,
        "image": shown(brightness(clothes.x_test)[0, 0]),
        "name": clothes.names[clothes.y_test[0]],
        "scores": [round(float(s), 2) for s in scores],
        "framed": [shown(image[0]) for image in brightness(x_test)[:4]],
    }


if __name__ == "__main__":
    main()
