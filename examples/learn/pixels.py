"""Chapter 1: an image is a table of numbers, and a class is what images of one kind have in common.

python examples/learn/pixels.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clothes import brightness, load, shown


def mean_images(x: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """The mean of all images of each class (K,H,W)."""
    return np.stack([x[y == k].mean(axis=(0, 1)) for k in range(classes)])


def nearest(image: np.ndarray, means: np.ndarray) -> int:
    """The class whose mean image differs least from this image (H,W)."""
    differences = ((means - image) ** 2).sum(axis=(1, 2))
    return int(differences.argmin())


def main() -> dict[str, Any]:
    """Look at one image, then name 1000 by the mean image that is nearest."""
    clothes = load()
    first = brightness(clothes.x_test)[0, 0]
    print(
        f"{len(clothes.x)} images to learn from, {len(clothes.x_test)} to test on, "
        f"{len(clothes.names)} classes"
    )
    print(f"one image is a table of {first.shape[0]} rows and {first.shape[1]} columns; a part of it:")
    part = np.rint(100 * first).astype(int)[4:9, 3:11]
    print("\n".join(" ".join(f"{value:3d}" for value in row) for row in part))

    means = mean_images(clothes.x, clothes.y, len(clothes.names))
    called = np.array([nearest(image[0], means) for image in clothes.x_test])
    right = called == clothes.y_test
    guess = float(np.bincount(clothes.y_test).max() / len(right))
    print(f"always the same name: {guess:.1%} right")
    print(f"the nearest mean image: {right.mean():.1%} right")
    shares = {name: float(right[clothes.y_test == k].mean()) for k, name in enumerate(clothes.names)}
    worst = min(shares, key=lambda name: shares[name])
    mistaken = np.bincount(called[clothes.y_test == clothes.names.index(worst)], minlength=len(shares))
    mistaken[clothes.names.index(worst)] = 0
    instead = clothes.names[int(mistaken.argmax())]
    print(f"worst: {worst}, {shares[worst]:.0%} right; the name most often given instead is {instead}")
    return {
        "image": shown(first),
        "part": part.tolist(),
        "name": clothes.names[clothes.y_test[0]],
        "pixels": int(first.size),
        "train": len(clothes.x),
        "test": len(right),
        "means": [shown(m) for m in brightness(means)],
        "names": clothes.names,
        "guess": guess,
        "accuracy": float(right.mean()),
        "worst": worst,
        "worst_share": shares[worst],
        "instead": instead,
    }


if __name__ == "__main__":
    main()
