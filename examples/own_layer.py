"""A layer of your own: PReLU, a ReLU that learns its slope below zero, one for each channel.

python examples/own_layer.py

    y = x where x > 0, else a[c] * x        da[c] = sum of dy * x where x <= 0
                                            dx = dy where x > 0, else a[c] * dy

It is written in NumPy and works on every CPU backend, since their arrays can be used as NumPy arrays
without a copy.  The program checks the gradients by central differences, then trains a network with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import Sequential, Trainer, data, optim
from minicnn.backends import Array
from minicnn.layers import Conv2d, Dense, Flatten, Layer, MaxPool2d
from minicnn.layers.layer import Generators


class PReLU(Layer):
    """(N,C,H,W) -> the same shape; weight (C,).  Torch: nn.PReLU(C)."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def initial_params(self, generator: Generators) -> dict[str, np.ndarray]:  # noqa: ARG002 - nothing is drawn
        return {"weight": np.full(self.num_channels, 0.25)}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        values, slope = self.backend.to_numpy(x), self._slope()
        y = np.where(values > 0, values, slope * values)
        return self.backend.asarray(y), values if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        upstream, below = self.backend.to_numpy(dy), saved <= 0
        dw = np.where(below, upstream * saved, 0).sum(axis=(0, 2, 3), dtype=saved.dtype)
        self.set_grads(self.backend.asarray(dw), None)
        if not need_dx:
            return None
        return self.backend.asarray(np.where(below, self._slope() * upstream, upstream))

    def _slope(self) -> np.ndarray:
        return self.backend.to_numpy(self.params["weight"])[:, None, None]


def gradient_errors(layer: Layer, x: np.ndarray, step: float = 1e-6) -> dict[str, float]:
    """The relative difference between backward and central differences, for x and for every parameter.

    Let L be the sum of y * dy for a random dy.  For any direction d, (L(v + h*d) - L(v - h*d)) / 2h must be
    <dL/dv, d>.  The layer must be bound to a backend, with dtype float64.
    """
    rng = np.random.default_rng(0)
    _, saved = layer.forward(x, True)
    dy = rng.standard_normal(x.shape)
    dx = layer.backward(dy, saved)
    assert dx is not None
    errors = {}
    for name, value, gradient in [
        ("x", x, dx),
        *((k, layer.params[k], layer.grads[k]) for k in layer.params),
    ]:
        direction = rng.standard_normal(value.shape)
        value += step * direction
        loss_after = np.vdot(layer.forward(x, True)[0], dy)
        value -= 2 * step * direction
        loss_before = np.vdot(layer.forward(x, True)[0], dy)
        value += step * direction
        slope = (loss_after - loss_before) / (2 * step)
        expected = np.vdot(gradient, direction)
        errors[name] = float(abs(slope - expected) / max(1, abs(expected)))
    return errors


def main() -> None:
    """Check the gradients, then train."""
    layer = PReLU(3)
    layer.bind("numpy", dtype="float64")
    for name, error in gradient_errors(
        layer, np.random.default_rng(1).standard_normal((2, 3, 5, 5))
    ).items():
        print(f"gradient to {name}: relative error {error:.0e}")
        if error > 1e-7:
            raise SystemExit(f"the gradient to {name} is wrong")

    dataset = data.load("fashion-mnist-sample", limit_train=1000, limit_test=200)
    model = Sequential(
        Conv2d(1, 8, 3, padding=1), PReLU(8), MaxPool2d(2), Flatten(), Dense(8 * 14 * 14, 10),
        backend="numpy",
    )  # fmt: skip
    trainer = Trainer(model, optim.Adam(lr=3e-3))
    batches = data.Batches(dataset.train, 50, mean=dataset.mean, std=dataset.std, seed=0)
    for epoch in range(3):
        losses = [trainer.step(x, y) for x, y in batches.epoch(epoch)]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    print("slopes below zero:", np.round(model.state_dict()["1.weight"], 2))


if __name__ == "__main__":
    main()
