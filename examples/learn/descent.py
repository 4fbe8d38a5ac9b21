"""Chapter 4: the loss as a landscape, and why the gradient is subtracted.

python examples/learn/descent.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clothes import load


def sleeves(x: np.ndarray) -> np.ndarray:
    """How bright each image (N,1,14,14) is at its sides: 0 is usual, 1 is one standard deviation more."""
    sides = x[:, 0][:, :, [1, 2, 11, 12]].mean(axis=(1, 2), dtype=np.float64)
    return np.asarray((sides - sides.mean()) / sides.std())


def loss_and_slope(w: float, feature: np.ndarray, is_shirt: np.ndarray) -> tuple[float, float]:
    """The mean of -log(probability of the right class), and its derivative with respect to w."""
    p = 1 / (1 + np.exp(-w * feature))  # the probability that it is a T-shirt
    lead = np.where(is_shirt, w * feature, -w * feature)  # of the right class
    losses = np.logaddexp(0, -lead)  # -log p of the right class, also where p rounds to 0
    return float(losses.mean()), float(((p - is_shirt) * feature).mean())


def descend(
    w: float, lr: float, steps: int, feature: np.ndarray, is_shirt: np.ndarray
) -> list[tuple[float, float]]:
    """The weight and the loss before each step, and after the last."""
    path = []
    for _ in range(steps + 1):
        loss, slope = loss_and_slope(w, feature, is_shirt)
        path.append((w, loss))
        w = w - lr * slope
    return path


def main() -> dict[str, Any]:
    """Measure a slope, take one step, then many steps with several learning rates."""
    clothes = load()
    chosen = clothes.y <= 1  # T-shirts are class 0, trousers class 1
    feature, is_shirt = sleeves(clothes.x[chosen]), clothes.y[chosen] == 0
    print(f"{len(feature)} images of T-shirts and trousers")
    start, lr, tiny = -1.0, 2.0, 0.001
    loss, slope = loss_and_slope(start, feature, is_shirt)
    beside, _ = loss_and_slope(start + tiny, feature, is_shirt)
    print(f"w = {start:.3f}: loss {loss:.6f}")
    print(f"w = {start + tiny:.3f}: loss {beside:.6f}")
    print(f"measured slope {(beside - loss) / tiny:.4f}, by the formula {slope:.4f}")
    after = start - lr * slope
    lower, _ = loss_and_slope(after, feature, is_shirt)
    higher, _ = loss_and_slope(start + lr * slope, feature, is_shirt)
    print(f"minus {lr:g} times the slope: w = {after:.3f}, loss {lower:.4f}")
    print(f"plus {lr:g} times the slope: w = {start + lr * slope:.3f}, loss {higher:.4f}")
    paths = {f"{rate:g}": descend(start, rate, 12, feature, is_shirt) for rate in (0.2, 2.0, 100.0)}
    for rate, path in paths.items():
        print(f"12 steps with learning rate {rate}: w = {path[-1][0]:.2f}, loss {path[-1][1]:.4f}")
    curve = [(w, loss_and_slope(w, feature, is_shirt)[0]) for w in np.linspace(-3, 5, 120).tolist()]
    final = paths["2"][-1][0]
    right = float(((feature * final > 0) == is_shirt).mean())
    print(f"with w = {final:.2f}, {right:.1%} are called by their right name")
    return {
        "images": len(feature),
        "start": start,
        "tiny": tiny,
        "lr": lr,
        "loss": loss,
        "beside": beside,
        "measured": (beside - loss) / tiny,
        "slope": slope,
        "after": after,
        "lower": lower,
        "higher": higher,
        "wrong": start + lr * slope,
        "curve": curve,
        "paths": paths,
        "right": right,
        "expected": lr * slope**2,
        "fall": loss - lower,
        "final": final,
    }


if __name__ == "__main__":
    main()
