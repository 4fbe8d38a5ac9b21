"""A minicnn model in JAX, channels-last and jitted, to compare whole training steps with.

Importing this module imports JAX, which only the extra ``peers`` installs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from minicnn import Sequential, layers
from minicnn.graph import Node, build
from minicnn.graph.graph import INPUT

Arrays = dict[str, Array]
CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
STATISTICS = ("running_mean", "running_var")


def training_step(
    model: Sequential, x: np.ndarray, y: np.ndarray, lr: float, momentum: float
) -> Callable[[], float]:
    """Steps of SGD on the cross-entropy of one batch x (N,C,H,W), y (N,), from the model's weights on."""
    net = JaxNet(model)
    images, labels = jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(y)

    def loss_of(parameters: Arrays, statistics: Arrays) -> tuple[Array, Arrays]:
        logits, statistics = net(parameters, statistics, images)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean(), statistics

    def step(parameters: Arrays, velocities: Arrays, statistics: Arrays) -> tuple[Any, ...]:
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(parameters, statistics)
        velocities = {k: momentum * velocities[k] + g for k, g in gradients.items()}
        return loss, {k: p - lr * velocities[k] for k, p in parameters.items()}, velocities, statistics

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    state: list[Any] = [net.parameters, {k: jnp.zeros_like(p) for k, p in net.parameters.items()}]
    state.append(net.statistics)

    def run() -> float:
        loss, *updated = jitted(*state)
        state[:] = updated
        jax.block_until_ready(state)
        return float(loss)

    return run


class JaxNet:
    """The model's layers as JAX operations in training mode; filters are (KH,KW,C,F)."""

    def __init__(self, model: Sequential) -> None:
        self.graph = build(model)
        arrays = {
            name: jnp.asarray(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a)
            for name, a in model.state_dict().items()
        }
        self.statistics = {k: a for k, a in arrays.items() if k.endswith(STATISTICS)}
        self.parameters = {k: a for k, a in arrays.items() if k.endswith((".weight", ".bias"))}

    def __call__(self, parameters: Arrays, statistics: Arrays, x: Array) -> tuple[Array, Arrays]:
        """Logits of images (N,H,W,C), and the new running statistics."""
        statistics = dict(statistics)
        values = {INPUT: x}
        for node in self.graph:
            inputs = [values[value] for value in node.inputs]
            if node.op == "add":
                values[node.output] = inputs[0] + inputs[1]
            elif node.op == "concat":
                values[node.output] = jnp.concatenate(inputs, axis=-1)
            else:
                values[node.output] = self._layer(node, parameters, statistics, *inputs)
        return values[self.graph.output], statistics

    def _layer(self, node: Node, parameters: Arrays, statistics: Arrays, x: Array) -> Array:
        (name,), layer = node.names, node.owner
        weight, bias = (parameters.get(f"{name}.{key}") for key in ("weight", "bias"))
        match layer:
            case layers.Conv2d():
                stride, padding, dilation, groups = layer.conv
                y = lax.conv_general_dilated(
                    x, weight, stride, [(p, p) for p in padding], rhs_dilation=dilation,
                    dimension_numbers=CHANNELS_LAST, feature_group_count=groups,
                )  # fmt: skip
                return y if bias is None else y + bias
            case layers.MaxPool2d():
                return max_pool(layer, x)
            case layers.AdaptiveAvgPool2d(output_size=(1, 1)):
                return x.mean(axis=(1, 2), keepdims=True)
            case layers.BatchNorm2d():
                mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
                count = x.size // x.shape[-1]
                for key, now in zip(STATISTICS, (mean, var * count / (count - 1)), strict=True):
                    before = statistics[f"{name}.{key}"]
                    statistics[f"{name}.{key}"] = before + layer.momentum * (now - before)
                return (x - mean) * lax.rsqrt(var + layer.eps) * weight + bias
            case layers.Dense():
                return x @ weight.T + bias
            case layers.ReLU():
                return jax.nn.relu(x)
            case layers.Flatten():
                return x.transpose(0, 3, 1, 2).reshape(len(x), -1)
            case layers.Dropout(p=0.0):
                return x
        raise ValueError(f"[jax_net] layer: expected one that the timed nets have, got {layer!r}")


def max_pool(layer: layers.MaxPool2d, x: Array) -> Array:
    """The layer's max-pool of x (N,H,W,C); with ceil_mode the last window may reach beyond the map."""
    kernel, stride, padding, _, _ = layer.pool
    sizes = x.shape[1:3]
    outputs = layer.output_shape((x.shape[3], *sizes))[1:]
    pads = [
        (p, (out - 1) * s + k - size - p)
        for out, size, k, s, p in zip(outputs, sizes, kernel, stride, padding, strict=True)
    ]
    # if the last window ends before the map does, the rest of the map is cut off
    x = x[:, : sizes[0] + min(0, pads[0][1]), : sizes[1] + min(0, pads[1][1])]
    around = [(0, 0), *((before, max(0, after)) for before, after in pads), (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *kernel, 1), (1, *stride, 1), around)
