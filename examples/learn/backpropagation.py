"""Chapter 5: one training step by hand, from a 4x4 image to the loss and back.

python examples/learn/backpropagation.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn.ops.conv2d import conv2d_backward, conv2d_forward
from minicnn.ops.dense import dense_backward, dense_forward
from minicnn.ops.max_pool2d import max_pool2d_backward, max_pool2d_forward
from minicnn.ops.relu import relu_backward, relu_forward
from minicnn.ops.softmax_cross_entropy import softmax_cross_entropy_backward, softmax_cross_entropy_forward

CONV = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
POOL = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
IMAGE = np.array([[0, 1, 2, 0], [1, 0, 3, 1], [0, 2, 1, 0], [1, 0, 0, 2]], np.float64)[None, None]
FILTERS = np.array(
    [[[0, 1, 0], [0, -1, 1], [1, 0, 0]], [[-1, 1, 0], [0, 0, 0], [0, -1, 1]]], np.float64
)[:, None]  # fmt: skip
WEIGHT = np.array([[0.5, -0.25], [-0.25, 0.25]])
LABEL = np.array([1])
LR = 0.02

Numbers = dict[str, np.ndarray]


def forward(filters: np.ndarray, weight: np.ndarray) -> Numbers:
    """Every value from the image to the loss."""
    conv = conv2d_forward(IMAGE, filters, None, **CONV)
    relu = relu_forward(conv)
    pool, argmax = max_pool2d_forward(relu, **POOL)
    logits = dense_forward(pool.reshape(1, 2), weight, None)
    loss, probs = softmax_cross_entropy_forward(logits, LABEL)
    return {"conv": conv, "relu": relu, "pool": pool, "argmax": argmax, "logits": logits,
            "probs": probs, "loss": loss}  # fmt: skip


def backward(values: Numbers, filters: np.ndarray, weight: np.ndarray) -> Numbers:
    """The gradient of the loss to each of them, from the loss back to the image."""
    logits = softmax_cross_entropy_backward(values["probs"], LABEL)
    flat, dense_weight, _ = dense_backward(logits, values["pool"].reshape(1, 2), weight)
    pool = flat.reshape(values["pool"].shape)
    relu = max_pool2d_backward(pool, values["argmax"], input_shape=values["relu"].shape, **POOL)
    conv = relu_backward(relu, values["relu"])
    image, filter_weight, _ = conv2d_backward(conv, IMAGE, filters, **CONV)
    return {"logits": logits, "weight": dense_weight, "pool": pool, "relu": relu, "conv": conv,
            "filters": filter_weight, "image": image}  # fmt: skip


def rows(values: np.ndarray) -> str:
    """Maps side by side."""
    maps = np.round(values.reshape(-1, *values.shape[-2:]), 4) + 0.0  # no minus zero
    return "\n".join(
        "   ".join(" ".join(f"{v:7.4g}" for v in m[i]) for m in maps) for i in range(maps.shape[1])
    )


def main() -> dict[str, Any]:
    """Print every number, check one gradient by a small change, and take one step."""
    values = forward(FILTERS, WEIGHT)
    gradients = backward(values, FILTERS, WEIGHT)
    print("forward")
    for name, array in {
        "image": IMAGE,
        "filters": FILTERS,
        **{k: values[k] for k in ("conv", "relu", "pool")},
    }.items():
        print(f"{name}\n{rows(array)}")
    print(f"dense weight\n{rows(WEIGHT)}")
    print(
        f"logits\n{rows(values['logits'])}\nprobabilities\n{rows(values['probs'])}\n"
        f"loss {float(values['loss']):.4f}"
    )
    print("\nbackward: the gradient of the loss to ...")
    names = {"weight": "dense weight"}
    for name in ("logits", "weight", "pool", "relu", "conv", "filters", "image"):
        print(f"{names.get(name, name)}\n{rows(gradients[name])}")

    tiny, changed = 0.001, FILTERS.copy()
    changed[0, 0, 0, 1] += tiny
    beside = float(forward(changed, WEIGHT)["loss"])
    loss = float(values["loss"])
    print(
        f"\nthe first filter's upper middle weight made {tiny} larger: the loss changes by "
        f"{beside - loss:.6f}"
    )
    after = forward(FILTERS - LR * gradients["filters"], WEIGHT - LR * gradients["weight"])
    print(f"one step with learning rate {LR}: the loss falls from {loss:.4f} to {float(after['loss']):.4f}")
    return {
        "image": IMAGE[0, 0].tolist(),
        "filters": FILTERS[:, 0].tolist(),
        "dense": WEIGHT.tolist(),
        "values": {k: v[0].tolist() if v.ndim else float(v) for k, v in values.items()},
        "gradients": {k: v.reshape(-1, *v.shape[-2:]).tolist() for k, v in gradients.items()},
        "loss": loss,
        "tiny": tiny,
        "change": beside - loss,
        "slope": (beside - loss) / tiny,
        "lr": LR,
        "after": float(after["loss"]),
    }


if __name__ == "__main__":
    main()
