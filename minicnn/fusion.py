"""Running neighbouring layers as one fused operation of the backend.

``fuse`` changes no layer and no name: it gives every container a plan in which neighbours that match
a row of PATTERNS are one step.  What a fused operation means is in `minicnn.backends.base`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minicnn.backends import Array, Backend
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.container import Container, Step
from minicnn.layers.conv2d import Conv2d
from minicnn.layers.dense import Dense
from minicnn.layers.layer import Layer
from minicnn.layers.max_pool2d import MaxPool2d
from minicnn.layers.parallel import Parallel
from minicnn.layers.relu import ReLU
from minicnn.layers.residual import Residual
from minicnn.layers.sequential import Sequential


class FusedStep:
    """Several layers that run as one operation; the first owns the parameters."""

    op: str

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = tuple(layers)

    def is_trainable(self) -> bool:
        """Whether one of the layers has parameters that are not frozen."""
        return any(layer.is_trainable() for layer in self.layers)


class Conv2dReLU(FusedStep):
    """conv2d, relu."""

    op = "conv2d_relu"

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__(layers)
        assert isinstance(layers[0], Conv2d)
        self.layer = layers[0]

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        layer = self.layer
        y, saved = layer.backend.conv2d_relu_forward(
            x, layer.params["weight"], layer.params.get("bias"), conv=layer.conv, need_saved=training
        )
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        layer, (x, kept) = self.layer, saved
        dx, dw, db = layer.backend.conv2d_relu_backward(
            dy, x, layer.params["weight"], kept, conv=layer.conv, need_dx=need_dx, **layer.need_grads()
        )
        layer.set_grads(dw, db)
        return dx


class Conv2dMaxPool2d(FusedStep):
    """conv2d, max_pool2d."""

    op = "conv2d_max_pool2d"

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__(layers)
        assert isinstance(layers[0], Conv2d)
        assert isinstance(layers[-1], MaxPool2d)
        self.layer, self.pool = layers[0], layers[-1].pool

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        layer = self.layer
        y, saved = layer.backend.conv2d_max_pool2d_forward(
            x, layer.params["weight"], layer.params.get("bias"),
            conv=layer.conv, pool=self.pool, need_saved=training,
        )  # fmt: skip
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        layer, (x, kept) = self.layer, saved
        dx, dw, db = layer.backend.conv2d_max_pool2d_backward(
            dy, x, layer.params["weight"], kept,
            conv=layer.conv, pool=self.pool, need_dx=need_dx, **layer.need_grads(),
        )  # fmt: skip
        layer.set_grads(dw, db)
        return dx


class Conv2dReLUMaxPool2d(Conv2dMaxPool2d):
    """conv2d, relu, max_pool2d."""

    op = "conv2d_relu_max_pool2d"

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        layer = self.layer
        y, saved = layer.backend.conv2d_relu_max_pool2d_forward(
            x, layer.params["weight"], layer.params.get("bias"),
            conv=layer.conv, pool=self.pool, need_saved=training,
        )  # fmt: skip
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        layer, (x, kept) = self.layer, saved
        dx, dw, db = layer.backend.conv2d_relu_max_pool2d_backward(
            dy, x, layer.params["weight"], kept,
            conv=layer.conv, pool=self.pool, need_dx=need_dx, **layer.need_grads(),
        )  # fmt: skip
        layer.set_grads(dw, db)
        return dx


class DenseReLU(FusedStep):
    """dense, relu."""

    op = "dense_relu"

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__(layers)
        assert isinstance(layers[0], Dense)
        self.layer = layers[0]

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        layer = self.layer
        y, saved = layer.backend.dense_relu_forward(
            x, layer.params["weight"], layer.params.get("bias"), need_saved=training
        )
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        layer, (x, kept) = self.layer, saved
        dx, dw, db = layer.backend.dense_relu_backward(
            dy, x, layer.params["weight"], kept, need_dx=need_dx, **layer.need_grads()
        )
        layer.set_grads(dw, db)
        return dx


class BatchNorm2dReLU(FusedStep):
    """batch_norm2d, relu."""

    op = "batch_norm2d_relu"

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__(layers)
        assert isinstance(layers[0], BatchNorm2d)
        self.layer = layers[0]

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        layer = self.layer
        arrays, attributes = layer.arguments(training)
        y, saved = layer.backend.batch_norm2d_relu_forward(x, *arrays, **attributes, need_saved=training)
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        layer, (x, kept) = self.layer, saved
        dx, dw, db = layer.backend.batch_norm2d_relu_backward(
            dy, x, layer.params.get("weight"), kept,
            training=layer.requires_grad, need_dx=need_dx, **layer.need_grads(),
        )  # fmt: skip
        layer.set_grads(dw, db)
        return dx


class BatchNorm2dReLUMaxPool2d(FusedStep):
    """batch_norm2d, relu, max_pool2d."""

    op = "batch_norm2d_relu_max_pool2d"

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__(layers)
        assert isinstance(layers[0], BatchNorm2d)
        assert isinstance(layers[-1], MaxPool2d)
        self.layer, self.pool = layers[0], layers[-1].pool

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        layer = self.layer
        arrays, attributes = layer.arguments(training)
        y, saved = layer.backend.batch_norm2d_relu_max_pool2d_forward(
            x, *arrays, **attributes, pool=self.pool, need_saved=training
        )
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        layer, (x, kept) = self.layer, saved
        dx, dw, db = layer.backend.batch_norm2d_relu_max_pool2d_backward(
            dy, x, layer.params.get("weight"), kept,
            training=layer.requires_grad, pool=self.pool, need_dx=need_dx, **layer.need_grads(),
        )  # fmt: skip
        layer.set_grads(dw, db)
        return dx


class BatchNorm2dAddReLU:
    """The end of a residual block, batch_norm2d, add, relu, as a `minicnn.layers.residual.Join`."""

    op = "batch_norm2d_add_relu"

    def __init__(self, layer: BatchNorm2d, relu: ReLU) -> None:
        self.layer = layer
        self.layers = (layer, relu)

    def forward(self, backend: Backend, z: Array, residual: Array, training: bool) -> tuple[Array, Any]:
        arrays, attributes = self.layer.arguments(training)
        y, saved = backend.batch_norm2d_add_relu_forward(
            z, residual, *arrays, **attributes, need_saved=training
        )
        return y, (z, saved) if training else None

    def backward(self, backend: Backend, dy: Array, saved: Any) -> tuple[Array, Array]:
        layer, (z, kept) = self.layer, saved
        dz, dresidual, dw, db = backend.batch_norm2d_add_relu_backward(
            dy, z, layer.params.get("weight"), kept, training=layer.requires_grad, **layer.need_grads()
        )
        layer.set_grads(dw, db)
        return dz, dresidual


PATTERNS: list[tuple[tuple[type[Layer], ...], type[Any]]] = [
    ((Conv2d, ReLU, MaxPool2d), Conv2dReLUMaxPool2d),
    ((BatchNorm2d, ReLU, MaxPool2d), BatchNorm2dReLUMaxPool2d),
    ((Conv2d, MaxPool2d), Conv2dMaxPool2d),
    ((Conv2d, ReLU), Conv2dReLU),
    ((Dense, ReLU), DenseReLU),
    ((BatchNorm2d, ReLU), BatchNorm2dReLU),
]
"""Longest first: the first row that matches is taken."""


def fuse(container: Container) -> None:
    """Give this container and all below it a plan with fused steps."""
    container.unfuse()
    for _, child in container.named_children():
        if isinstance(child, Container):
            fuse(child)
    if isinstance(container, Residual):
        _fuse_residual(container)
    elif not isinstance(container, Parallel):
        container.plan = _plan(list(_flat(container.children.values())))


def unfuse(container: Container) -> None:
    """Undo `fuse`: every layer is a step of its own again."""
    for _, layer in container.named_layers():
        if isinstance(layer, Container):
            layer.unfuse()


def _flat(layers: Iterable[Layer]) -> Iterator[Layer]:
    """The layers with what nested Sequentials hold in their places, so that all of it can be fused."""
    for layer in layers:
        if isinstance(layer, Sequential):
            yield from _flat(layer.children.values())
        else:
            yield layer


def _plan(layers: list[Layer]) -> list[Step]:
    plan: list[Step] = []
    i = 0
    while i < len(layers):
        kinds = tuple(type(layer) for layer in layers[i:])
        for pattern, step in PATTERNS:
            if kinds[: len(pattern)] == pattern:
                plan.append(step(layers[i : i + len(pattern)]))
                i += len(pattern)
                break
        else:
            plan.append(layers[i])
            i += 1
    return plan


def _fuse_residual(residual: Residual) -> None:
    """Let the body's last batch norm run together with the addition and the ReLU after it."""
    body = list(_flat(residual.body.children.values()))
    if residual.activation is not None and body and isinstance(body[-1], BatchNorm2d):
        residual.plan = _plan(body[:-1])
        residual.join = BatchNorm2dAddReLU(body[-1], residual.activation)


def fused_names(container: Container) -> dict[int, str]:
    """id(layer) -> the fused operation that runs it, for `print(model)`."""
    names: dict[int, str] = {}
    for _, layer in container.named_layers():
        if isinstance(layer, Container):
            steps: list[Any] = [*layer.plan, getattr(layer, "join", None)]
            for step in steps:
                if isinstance(step, (FusedStep, BatchNorm2dAddReLU)):
                    # Parents come first, and run what is in the Sequentials below them.
                    names = {id(fused): step.op for fused in step.layers} | names
    return names
