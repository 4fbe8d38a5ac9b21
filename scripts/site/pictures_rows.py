"""Operations on rows and curves: ReLU, dense, softmax, the loss, the optimizers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from svg import Drawing, number

from minicnn.ops.optimizers import Arrays, adam_step, sgd_step
from minicnn.ops.relu import relu_backward, relu_forward
from minicnn.ops.softmax import softmax_forward
from minicnn.ops.softmax_cross_entropy import softmax_cross_entropy_backward, softmax_cross_entropy_forward

LOGITS = np.array([[2.0, 1.0, 0.2, -1.0]])


def relu() -> str:
    """The function and its derivative."""
    x = np.linspace(-2, 2, 401)
    y = relu_forward(x)
    d = Drawing()
    for k, (title, values) in enumerate((("y", y), ("dy/dx", relu_backward(np.ones_like(x), y)))):
        left, top, scale = k * 200, 24, 40
        zero = top + 2 * scale
        d.line([(left, zero), (left + 4 * scale, zero)], "axis")
        d.line([(left + 2 * scale, top), (left + 2 * scale, zero + 20)], "axis")
        d.line(
            [(left + (a + 2) * scale, zero - b * scale) for a, b in zip(x, values, strict=True)], "path-a"
        )
        d.text(left + 2 * scale, 10, title)
        for tick in (-2, -1, 1, 2):
            d.text(left + (tick + 2) * scale, zero + 14, number(tick), "small faint")
        d.text(left + 2 * scale - 12, zero - scale, "1", "small faint")
    return d.figure("ReLU and its derivative, which is 0 at 0.")


def dense() -> str:
    """The shapes of the three products."""
    d = Drawing()
    n, inputs, outputs = 56, 84, 48

    def product(top: float, left: tuple[str, int, int], right: tuple[str, int, int], out: str) -> float:
        x = 0.0
        for k, (name, rows, columns) in enumerate((left, right, (out, left[1], right[2]))):
            if k:
                d.text(x + 14, top + 30, "@" if k == 1 else "=")
                x += 28
            d.box(x, top, columns, rows, "abc"[k], name)
            x += columns
        return top + max(left[1], right[1]) + 22

    top = product(0, ("x", n, inputs), ("Wᵀ", inputs, outputs), "y")
    top = product(top, ("dy", n, outputs), ("W", outputs, inputs), "dx")
    product(top, ("dyᵀ", outputs, n), ("x", n, inputs), "dW")
    return d.figure(
        "Heights are rows, widths are columns: x (N, in), W (out, in), y (N, out). For each gradient "
        "the shapes leave only one way to multiply the two other arrays."
    )


def _bars(d: Drawing, left: float, title: str, values: np.ndarray, scale: float, style: str) -> None:
    zero, wide = 120, 26
    d.text(left + 2 * (wide + 6), 8, title)
    d.line([(left - 4, zero), (left + 4 * (wide + 6), zero)], "axis")
    for k, value in enumerate(values):
        height = abs(value) * scale
        x = left + k * (wide + 6)
        d.box(x, zero - height if value > 0 else zero, wide, height, style)
        d.text(
            x + wide / 2,
            zero - height - 10 if value > 0 else zero + height + 10,
            number(round(value, 2)),
            "small",
        )


def softmax() -> str:
    """Logits and probabilities."""
    p = softmax_forward(LOGITS)
    d = Drawing()
    _bars(d, 8, "x", LOGITS[0], 36, "a")
    _bars(d, 190, "p = softmax(x)", p[0], 120, "c")
    return d.figure("Four logits and their probabilities, which are positive and add up to 1.")


def softmax_cross_entropy() -> str:
    """Probabilities, target, gradient."""
    labels = np.array([1])
    loss, p = softmax_cross_entropy_forward(LOGITS, labels)
    gradient = softmax_cross_entropy_backward(p, labels)
    d = Drawing()
    _bars(d, 8, "p", p[0], 88, "a")
    _bars(d, 160, "t", np.eye(4)[1], 88, "b")
    _bars(d, 312, "dlogits = p − t", gradient[0], 88, "c")
    return d.figure(
        f"One row whose label is class 1; the loss is −log {number(round(float(p[0, 1]), 3))} = "
        f"{number(round(float(loss), 3))}. A step against the gradient raises the label's logit and lowers "
        "every other one in proportion to its probability."
    )


def optimizers() -> str:
    """Sixty steps of three optimizers in a long valley."""
    curvature = np.array([0.06, 1.0])
    d = Drawing()
    scale, middle = 34.0, (30.0, 130.0)
    for level in (0.2, 0.8, 1.8, 3.2):
        turn = np.linspace(-1.65, 1.65, 121)  # the right half of an ellipse, and a little more
        across, down = np.sqrt(2 * level / curvature)[:, None] * np.stack([np.cos(turn), np.sin(turn)])
        d.line(list(zip(middle[0] + scale * across, middle[1] + scale * down, strict=True)), "thin")

    def plain(w: Arrays, g: Arrays, m: Arrays, *_: object) -> None:
        sgd_step(w, g, m, lr=1.7, momentum=0, weight_decay=0, nesterov=False)

    def momentum(w: Arrays, g: Arrays, m: Arrays, *_: object) -> None:
        sgd_step(w, g, m, lr=0.3, momentum=0.8, weight_decay=0, nesterov=False)

    def adam(w: Arrays, g: Arrays, m: Arrays, s: Arrays, t: int) -> None:
        rest = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0, "decoupled": False}
        adam_step(w, g, m, s, lr=0.3, step=t, **rest)

    runs: list[tuple[str, str, Callable[..., None]]] = [
        ("SGD, lr 1.7", "path-a", plain),
        ("SGD, lr 0.3, momentum 0.8", "path-b", momentum),
        ("Adam, lr 0.3", "path-c", adam),
    ]
    for k, (label, style, step) in enumerate(runs):
        w = [np.array([9.0, 2.2])]
        m, s = [np.zeros(2)], [np.zeros(2)]
        places = [w[0].copy()]
        for t in range(1, 61):
            step(w, [curvature * w[0]], m, s, t)
            places.append(w[0].copy())
        d.line([(middle[0] + scale * a, middle[1] + scale * b) for a, b in places], style)
        d.line([(20, 262 + 22 * k), (50, 262 + 22 * k)], style)
        d.text(58, 262 + 22 * k, label, "left small")
    return d.figure(
        "Sixty steps of each on ½(0.06·w₀² + w₁²), starting on the right, computed by the library itself. "
        "Plain SGD jumps from side to side in the steep direction and is slow in the flat one. With "
        "momentum, steps in the same direction add up. Adam divides each coordinate by the typical size of "
        "its gradient."
    )


PICTURES: dict[str, Callable[..., str]] = {
    f.__name__: f for f in (relu, dense, softmax, softmax_cross_entropy, optimizers)
}
