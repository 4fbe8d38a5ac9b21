"""Chapter 7: is the network good?  Three kinds of images, overfitting, precision, recall, and the mistakes.

python examples/learn/judging.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clothes import accuracy, fit, load

from minicnn.layers import Dense, Flatten, ReLU, Sequential
from minicnn.metrics import cross_entropy

LEARN, EPOCHS = 400, 40


def confusion(labels: np.ndarray, called: np.ndarray, classes: int) -> np.ndarray:
    """Row k counts what the images of class k were called (K,K)."""
    matrix = np.zeros((classes, classes), int)
    for label, name in zip(labels, called, strict=True):
        matrix[label, name] += 1
    return matrix


def main() -> dict[str, Any]:
    """Train on some images, choose the epoch by others, and count the mistakes on the test images."""
    clothes = load(train=1400)
    x, y = clothes.x[:LEARN], clothes.y[:LEARN]
    x_held, y_held = clothes.x[LEARN:], clothes.y[LEARN:]
    print(
        f"{len(x)} images to learn from, {len(x_held)} for validation, {len(clothes.x_test)} for the test"
    )
    model = Sequential(Flatten(), Dense(196, 128), ReLU(), Dense(128, 10), backend="numpy", seed=0)
    history: list[tuple[float, float]] = []
    states = []

    def judge() -> None:
        history.append((cross_entropy(model.predict(x), y), cross_entropy(model.predict(x_held), y_held)))
        states.append(model.state_dict())

    fit(model, x, y, lr=0.03, epochs=EPOCHS, after_epoch=judge)
    best = int(np.argmin([validation for _, validation in history]))
    for epoch in (0, best, EPOCHS - 1):
        learnt, validation = history[epoch]
        print(
            f"epoch {epoch + 1:2d}: loss {learnt:.3f} on the images learnt from, "
            f"{validation:.3f} in validation"
        )
    last = accuracy(model, x, y), accuracy(model, x_held, y_held)
    print(
        f"after epoch {EPOCHS}: {last[0]:.1%} of the images learnt from are right, "
        f"{last[1]:.1%} in validation"
    )

    model.load_state_dict(states[best])
    called = model.predict(clothes.x_test).argmax(axis=1)
    matrix = confusion(clothes.y_test, called, len(clothes.names))
    test = float((called == clothes.y_test).mean())
    print(f"epoch {best + 1}, which validation chose: {test:.1%} of the test images are right")
    shirt = clothes.names.index("Shirt")
    hits, named, there = int(matrix[shirt, shirt]), int(matrix[:, shirt].sum()), int(matrix[shirt].sum())
    print(f"the network called {named} images Shirt; {hits} were shirts: precision {hits / named:.0%}")
    print(f"there were {there} shirts; it found {hits} of them: recall {hits / there:.0%}")
    off = matrix - np.diag(np.diag(matrix))
    true, wrong = np.unravel_index(off.argmax(), off.shape)
    print(f"most frequent mistake: {off.max()} times, {clothes.names[true]} called {clothes.names[wrong]}")
    return {
        "learn": LEARN,
        "validation": len(x_held),
        "test_images": len(called),
        "epochs": EPOCHS,
        "history": history,
        "best": best + 1,
        "best_losses": history[best],
        "last_losses": history[-1],
        "last": last,
        "test": test,
        "spread": 100 * float(np.sqrt(test * (1 - test) / len(called))),
        "matrix": matrix.tolist(),
        "names": clothes.names,
        "hits": hits,
        "named": named,
        "there": there,
        "precision": hits / named,
        "recall": hits / there,
        "mistakes": int(off.max()),
        "true": clothes.names[true],
        "wrong": clothes.names[wrong],
    }


if __name__ == "__main__":
    main()
