"""Residual connection: y = activation(body(x) + shortcut(x))."""

from __future__ import annotations

from typing import Any, Protocol

from minicnn import shapes
from minicnn.backends import Array, Backend
from minicnn.layers.container import Container, Step, run_backward, run_forward
from minicnn.layers.layer import Layer, Shape
from minicnn.layers.relu import ReLU
from minicnn.layers.sequential import Sequential


class Residual(Container):
    """``body`` plus ``shortcut`` (the identity if None), then ``activation`` (none if None).

    The body's children keep their own names; the shortcut's bear ``shortcut_name``, which is
    "downsample" in torchvision's ResNets.  Source: He et al. 2015, arXiv:1512.03385.
    """

    def __init__(
        self, body: Sequential, shortcut: Layer | None = None, *, shortcut_name: str = "downsample",
        activation: ReLU | None = None,
    ) -> None:  # fmt: skip
        self.body, self.shortcut, self.activation = body, shortcut, activation
        children: dict[str, Layer] = {"": body}
        if shortcut is not None:
            if shortcut_name in body.children:
                shapes.fail("Residual", "shortcut_name", "a name that body has not", shortcut_name)
            children[shortcut_name] = shortcut
        if activation is not None:
            children["relu"] = activation
        super().__init__(children)

    def unfuse(self) -> None:
        self.fused = False
        self.plan: list[Step] = [self.body]
        self.join: Join = AddJoin(self.activation)

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        residual, shortcut_saved = x, None
        if self.shortcut is not None:
            residual, shortcut_saved = self.shortcut.forward(x, training)
        z, body_saved = run_forward(self.plan, x, training)
        y, join_saved = self.join.forward(self.backend, z, residual, training)
        return y, (shortcut_saved, body_saved, join_saved) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        shortcut_saved, body_saved, join_saved = saved
        dz, dresidual = self.join.backward(self.backend, dy, join_saved)
        dx = run_backward(self.plan, dz, body_saved, need_dx)
        if self.shortcut is not None and (need_dx or self.shortcut.is_trainable()):
            dresidual = self.shortcut.backward(dresidual, shortcut_saved, need_dx)
        return self.backend.add_forward(dx, dresidual) if need_dx else None

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = self.body.output_shape(input_shape)
        other = self.shortcut.output_shape(input_shape) if self.shortcut else input_shape
        if shape != other:
            shapes.fail("Residual", "shortcut", f"output shape {shape} as the body's", other)
        return shape

    def multiply_adds(self, input_shape: Shape) -> int:
        total = self.body.multiply_adds(input_shape)
        return total + (self.shortcut.multiply_adds(input_shape) if self.shortcut else 0)

    def __repr__(self) -> str:
        shortcut = "identity" if self.shortcut is None else "shortcut"
        return f"Residual({shortcut}{', ReLU' if self.activation else ''})"


class Join(Protocol):
    """How the body's result z and the shortcut's residual meet."""

    def forward(self, backend: Backend, z: Array, residual: Array, training: bool) -> tuple[Array, Any]: ...

    def backward(self, backend: Backend, dy: Array, saved: Any) -> tuple[Array, Array]:
        """(dz, dresidual)."""
        ...


class AddJoin:
    """Add, then the activation, as operations of their own."""

    def __init__(self, activation: ReLU | None) -> None:
        self.activation = activation

    def forward(self, backend: Backend, z: Array, residual: Array, training: bool) -> tuple[Array, Any]:
        y = backend.add_forward(z, residual)
        return (y, None) if self.activation is None else self.activation.forward(y, training)

    def backward(self, backend: Backend, dy: Array, saved: Any) -> tuple[Array, Array]:
        if self.activation is not None:
            dy = self.activation.backward(dy, saved)
        dz, dresidual = backend.add_backward(dy)
        return dz, dresidual
