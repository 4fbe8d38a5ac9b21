"""Chapter 3: a convolution looks at small neighbourhoods, with the same weights everywhere.

python examples/learn/convolution.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from clothes import accuracy, anywhere, brightness, fit, load, shown, weights_of

from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU, Sequential
from minicnn.ops.conv2d import conv2d_forward
from minicnn.ops.relu import relu_forward

ONE = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
EDGES = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], np.float32)[None, None]


def network(side: int) -> Sequential:
    """Two convolutions; the last pool asks of each map only whether its pattern is anywhere."""
    return Sequential(
        Conv2d(1, 8, 3, padding=1), ReLU(), MaxPool2d(2),
        Conv2d(8, 16, 3, padding=1), ReLU(), MaxPool2d(side // 2),
        Flatten(), Dense(16, 10), backend="numpy", seed=0,
    )  # fmt: skip


def main() -> dict[str, Any]:
    """Find edges by one filter, see that a map moves with its image, then train on images anywhere."""
    clothes = load()
    x, x_test = anywhere(clothes.x, seed=1), anywhere(clothes.x_test, seed=2)
    image = np.round(brightness(x_test)[:1], 3)  # so that the printed sum is that of the printed numbers
    edges = conv2d_forward(image, EDGES, None, **ONE)
    row, column = np.unravel_index(edges[0, 0].argmax(), edges.shape[2:])
    window = image[0, 0, row - 1 : row + 2, column - 1 : column + 2]
    print("a window of the image, times the filter, is the value of the map there:")
    print(
        " + ".join(f"{p:.3f}*{w:g}" for p, w in zip(window.flat, EDGES.flat, strict=True)),
        f"= {edges[0, 0, row, column]:.3f}",
    )
    moved = conv2d_forward(np.roll(image, 3, axis=3), EDGES, None, **ONE)
    inside = np.abs(np.roll(edges, 3, axis=3) - moved)[..., 4:-4].max()
    print(f"image moved by 3 pixels: the map moves by 3 pixels too, largest difference {inside:.1f}")

    model = network(side=x.shape[2])
    losses = fit(model, x, clothes.y, lr=0.02, epochs=6)
    placed = accuracy(model, x_test, clothes.y_test)
    print(f"{weights_of(model)} numbers to learn; at any place of the frame: {placed:.1%} right")
    filters = model.state_dict()["0.weight"]
    maps = relu_forward(conv2d_forward(x_test[:1], filters, model.state_dict()["0.bias"], **ONE))
    pixels = x[0].size
    return {
        "image": shown(image[0, 0]),
        "edges": shown(edges[0, 0] / np.abs(edges).max()),
        "window": shown(window, digits=3),
        "row": int(row),
        "column": int(column),
        "sum": float(edges[0, 0, row, column]),
        "difference": float(inside),
        "moved_image": shown(np.roll(image, 3, axis=3)[0, 0]),
        "moved_edges": shown(moved[0, 0] / np.abs(moved).max()),
        "weights": weights_of(model),
        "accuracy": placed,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "filters": [shown(f[0] / np.abs(filters).max()) for f in filters],
        "maps": [shown(m / maps.max()) for m in maps[0]],
        "pixels": pixels,
        "scores": [round(float(s), 2) for s in model.predict(x_test[:1])[0]],
        "names": clothes.names,
        "dense_layer": pixels * 8 * pixels,
        "conv_layer": 8 * 9,
    }


if __name__ == "__main__":
    main()
