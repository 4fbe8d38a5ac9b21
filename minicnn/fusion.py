"""Running neighbouring layers as one fused operation of the backend.

``fuse`` changes no layer and no name: it gives every container a plan in which neighbours that match
a row of PATTERNS are one step.  What a fused operation means is in `minicnn.backends.base`.
"""

from __future__ import annotations

from collections.abc import Iterator
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

PATTERNS: list[tuple[str, tuple[type[Layer], ...]]] = [
    ("conv2d_relu_max_pool2d", (Conv2d, ReLU, MaxPool2d)),
    ("batch_norm2d_relu_max_pool2d", (BatchNorm2d, ReLU, MaxPool2d)),
    ("conv2d_max_pool2d", (Conv2d, MaxPool2d)),
    ("conv2d_relu", (Conv2d, ReLU)),
    ("dense_relu", (Dense, ReLU)),
    ("batch_norm2d_relu", (BatchNorm2d, ReLU)),
]
"""Which layers run as which operation.  Longest first: the first row that matches is taken."""


class FusedStep:
    """Layers that run as the operation ``op``: the first owns the parameters, a max-pool is the last."""

    def __init__(self, op: str, layers: list[Layer]) -> None:
        self.op, self.layers, self.owner = op, tuple(layers), layers[0]
        last = layers[-1]
        self.pool = {"pool": last.pool} if isinstance(last, MaxPool2d) else {}

    def is_trainable(self) -> bool:
        """Whether the parameters are not frozen."""
        return self.owner.is_trainable()

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        operation = getattr(self.owner.backend, f"{self.op}_forward")
        arrays, attributes = _forward_arguments(self.owner, training)
        y, saved = operation(x, *arrays, **attributes, **self.pool, need_saved=training)
        return y, (x, saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        owner, (x, kept) = self.owner, saved
        operation = getattr(owner.backend, f"{self.op}_backward")
        attributes = {**_backward_attributes(owner), **self.pool, **owner.need_grads()}
        dx, dw, db = operation(dy, x, owner.params.get("weight"), kept, need_dx=need_dx, **attributes)
        owner.set_grads(dw, db)
        return dx


def _forward_arguments(owner: Layer, training: bool) -> tuple[tuple[Array, ...], dict[str, Any]]:
    """What a fused forward operation takes after x."""
    if isinstance(owner, BatchNorm2d):
        return owner.arguments(training)
    return (owner.params["weight"], owner.params.get("bias")), _backward_attributes(owner)


def _backward_attributes(owner: Layer) -> dict[str, Any]:
    """The keyword arguments of a fused backward operation that its first layer decides."""
    if isinstance(owner, BatchNorm2d):
        return {"training": owner.requires_grad}
    return {"conv": owner.conv} if isinstance(owner, Conv2d) else {}


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


class AddReLU:
    """The end of a residual block without a batch norm, add, relu, as a `minicnn.layers.residual.Join`."""

    op = "add_relu"

    def __init__(self, relu: ReLU) -> None:
        self.layers = (relu,)

    def forward(self, backend: Backend, z: Array, residual: Array, training: bool) -> tuple[Array, Any]:
        return backend.add_relu_forward(z, residual, need_saved=training)

    def backward(self, backend: Backend, dy: Array, saved: Any) -> tuple[Array, Array]:
        return backend.add_relu_backward(dy, saved)


def fuse(container: Container) -> None:
    """Give this container and all below it a plan with fused steps."""
    container.unfuse()
    container.fused = True
    for _, child in container.named_children():
        if isinstance(child, Container):
            fuse(child)
    if isinstance(container, Residual):
        _fuse_residual(container)
    elif not isinstance(container, Parallel):
        container.plan = _plan([layer for _, layer in flat(container)])


def unfuse(container: Container) -> None:
    """Undo `fuse`: every layer is a step of its own again."""
    for _, layer in container.named_layers():
        if isinstance(layer, Container):
            layer.unfuse()


def flat(container: Container, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """The children by dotted name, with what nested Sequentials hold in their places."""
    for name, layer in container.children.items():
        if isinstance(layer, Sequential):
            yield from flat(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer


def _plan(layers: list[Layer]) -> list[Step]:
    plan: list[Step] = []
    i = 0
    while i < len(layers):
        kinds = tuple(type(layer) for layer in layers[i:])
        for op, pattern in PATTERNS:
            if kinds[: len(pattern)] == pattern:
                plan.append(FusedStep(op, layers[i : i + len(pattern)]))
                i += len(pattern)
                break
        else:
            plan.append(layers[i])
            i += 1
    return plan


def _fuse_residual(residual: Residual) -> None:
    """Let the addition and the ReLU after it run together, and the body's last batch norm with them."""
    if residual.activation is None:
        return
    body = [layer for _, layer in flat(residual.body)]
    if body and isinstance(body[-1], BatchNorm2d):
        residual.plan = _plan(body[:-1])
        residual.join = BatchNorm2dAddReLU(body[-1], residual.activation)
    else:
        residual.join = AddReLU(residual.activation)


def fused_names(container: Container) -> dict[int, str]:
    """id(layer) -> the fused operation that runs it, for `print(model)`."""
    names: dict[int, str] = {}
    for _, layer in container.named_layers():
        if isinstance(layer, Container):
            steps: list[Any] = [*layer.plan, getattr(layer, "join", None)]
            for step in steps:
                if isinstance(step, (FusedStep, BatchNorm2dAddReLU, AddReLU)):
                    # Parents come first, and run what is in the Sequentials below them.
                    names = {id(fused): step.op for fused in step.layers} | names
    return names
