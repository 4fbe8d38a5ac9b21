"""A training step as it is usually written in NumPy, for comparison: im2col with index arrays.

Every value of every patch is read through an index array, np.add.at adds the gradients back, and every
layer allocates new NCHW arrays.  The nets are those of `minicnn.models`, and give the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

State = dict[str, np.ndarray]


def patch_indices(shape: tuple[int, ...], kernel: int, padding: int) -> tuple[Any, Any, Any]:
    """Channel, row and column index of every value of every patch."""
    _, c, h, w = shape
    oh, ow = h + 2 * padding - kernel + 1, w + 2 * padding - kernel + 1
    channels = np.repeat(np.arange(c), kernel * kernel)[:, None]
    rows = np.tile(np.repeat(np.arange(kernel), kernel), c)[:, None] + np.repeat(np.arange(oh), ow)
    columns = np.tile(np.arange(kernel), kernel * c)[:, None] + np.tile(np.arange(ow), oh)
    return channels, rows, columns


class Conv:
    def __init__(self, weight: np.ndarray, bias: np.ndarray, padding: int) -> None:
        self.weight, self.bias, self.padding = weight, bias, padding

    def forward(self, x: np.ndarray) -> np.ndarray:
        f, _, k, _ = self.weight.shape
        p = self.padding
        self.shape = x.shape
        self.indices = patch_indices(x.shape, k, p)
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        channels, rows, columns = self.indices
        self.cols = padded[:, channels, rows, columns].transpose(1, 2, 0).reshape(self.weight[0].size, -1)
        y = self.weight.reshape(f, -1) @ self.cols + self.bias[:, None]
        side = x.shape[2] + 2 * p - k + 1
        return y.reshape(f, side, -1, len(x)).transpose(3, 0, 1, 2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        f = len(self.weight)
        n, c, h, w = self.shape
        p = self.padding
        matrix = dy.transpose(1, 2, 3, 0).reshape(f, -1)
        self.dbias = dy.sum(axis=(0, 2, 3))
        self.dweight = (matrix @ self.cols.T).reshape(self.weight.shape)
        dcols = self.weight.reshape(f, -1).T @ matrix
        padded = np.zeros((n, c, h + 2 * p, w + 2 * p), dy.dtype)
        channels, rows, columns = self.indices
        patches = dcols.reshape(len(dcols), -1, n).transpose(2, 0, 1)
        np.add.at(padded, (slice(None), channels, rows, columns), patches)
        return padded[:, :, p : p + h, p : p + w]


class ReLU:
    def forward(self, x: np.ndarray) -> np.ndarray:
        self.on = x > 0
        return x * self.on

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.on


class Pool:
    def forward(self, x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        self.shape = x.shape
        windows = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 4)
        self.winners = windows.argmax(axis=1)
        return windows[np.arange(len(windows)), self.winners].reshape(n, c, h // 2, w // 2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        n, c, h, w = self.shape
        windows = np.zeros((dy.size, 4), dy.dtype)
        windows[np.arange(dy.size), self.winners] = dy.ravel()
        return windows.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(self.shape)


class Flatten:
    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy.reshape(self.shape)


class Dense:
    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.dweight, self.dbias = dy.T @ self.x, dy.sum(axis=0)
        return dy @ self.weight


class UsualNet:
    """lenet5 or simple_cnn with the weights of a state dict, trained by SGD with momentum."""

    def __init__(self, state: State, name: str) -> None:
        paddings = {"lenet5": (2, 0), "simple_cnn": (1, 1)}[name]
        self.layers: list[Any] = []
        for i, padding in enumerate(paddings, 1):
            conv = Conv(state[f"conv{i}.weight"].copy(), state[f"conv{i}.bias"].copy(), padding)
            self.layers += [conv, ReLU(), Pool()]
        self.layers.append(Flatten())
        last = max(int(key[2]) for key in state if key.startswith("fc"))
        for i in range(1, last + 1):
            self.layers.append(Dense(state[f"fc{i}.weight"].copy(), state[f"fc{i}.bias"].copy()))
            if i < last:
                self.layers.append(ReLU())
        self.momenta: dict[tuple[int, str], np.ndarray] = {}

    def step(self, x: np.ndarray, y: np.ndarray, lr: float, momentum: float) -> float:
        for layer in self.layers:
            x = layer.forward(x)
        exps = np.exp(x - x.max(axis=1, keepdims=True))
        probs = exps / exps.sum(axis=1, keepdims=True)
        loss = -np.log(probs[np.arange(len(y)), y]).mean()
        probs[np.arange(len(y)), y] -= 1
        dy = probs / len(y)
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        for i, layer in enumerate(self.layers):
            for name in ("weight", "bias"):
                if hasattr(layer, name):
                    self._update(i, layer, name, lr, momentum)
        return float(loss)

    def _update(self, i: int, layer: Any, name: str, lr: float, momentum: float) -> None:
        velocity = momentum * self.momenta.get((i, name), 0.0) + getattr(layer, f"d{name}")
        self.momenta[i, name] = velocity
        setattr(layer, name, getattr(layer, name) - lr * velocity)
