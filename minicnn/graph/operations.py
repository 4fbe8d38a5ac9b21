"""What a node can be: a layer's own operation, a meeting of branches, or a fused operation of the backend.

An operation reads arrays and gives one.  ``forward`` also returns what ``backward`` will need, None in
evaluation; ``backward`` returns one gradient for each input, None where it is not needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minicnn import shapes
from minicnn.backends import Array, Backend

if TYPE_CHECKING:
    from minicnn.layers.layer import Layer

Shape = tuple[int, ...]
Needs = tuple[bool, ...]
Gradients = tuple[Array | None, ...]


class Operation(ABC):
    """What every operation of a node offers."""

    op: str
    layers: tuple[Layer, ...] = ()
    owner: Layer | None = None

    def attributes(self) -> dict[str, Any]:
        """The attributes of the operation, as its layers have them now."""
        found: dict[str, Any] = {}
        for layer in self.layers:
            found |= layer.attributes()
        return found

    def label(self) -> str:
        """What is printed of it beside its name."""
        return ", ".join(layer.label() for layer in self.layers)

    @abstractmethod
    def output_shape(self, inputs: list[Shape]) -> Shape:
        """The shape of the result for one sample, given those of the inputs."""

    def multiply_adds(self, inputs: list[Shape]) -> int:  # noqa: ARG002 - for overriders
        """Multiply-adds of a forward pass of one sample."""
        return 0

    @abstractmethod
    def forward(self, backend: Backend, inputs: Sequence[Array], training: bool) -> tuple[Array, Any]:
        """(y, saved)."""

    @abstractmethod
    def backward(self, backend: Backend, dy: Array, saved: Any, needs: Needs) -> Gradients:
        """The gradient of each input; sets those of the owner's parameters."""


class LayerOperation(Operation):
    """A layer, run by its own ``forward`` and ``backward``."""

    def __init__(self, layer: Layer) -> None:
        self.op, self.layer = operation_name(layer), layer
        self.layers, self.owner = (layer,), layer

    def output_shape(self, inputs: list[Shape]) -> Shape:
        return self.layer.output_shape(inputs[0])

    def multiply_adds(self, inputs: list[Shape]) -> int:
        return self.layer.multiply_adds(inputs[0])

    def forward(
        self,
        backend: Backend,  # noqa: ARG002 - a layer knows its own
        inputs: Sequence[Array],
        training: bool,
    ) -> tuple[Array, Any]:
        return self.layer.forward(inputs[0], training)

    def backward(
        self,
        backend: Backend,  # noqa: ARG002 - a layer knows its own
        dy: Array,
        saved: Any,
        needs: Needs,
    ) -> Gradients:
        return (self.layer.backward(dy, saved, needs[0]),)


def operation_name(layer: Layer) -> str:
    """The layer's operation in the contract, or its class's name if a class has a forward of its own."""
    for cls in type(layer).__mro__:
        if "op" in vars(cls) and layer.op:
            return layer.op
        if "forward" in vars(cls) or "backward" in vars(cls):
            break
    return type(layer).__name__


class Add(Operation):
    """z + residual, which have one shape."""

    op = "add"

    def output_shape(self, inputs: list[Shape]) -> Shape:
        body, shortcut = inputs
        if body != shortcut:
            shapes.fail("Residual", "shortcut", f"output shape {body} as the body's", shortcut)
        return body

    def forward(self, backend: Backend, inputs: Sequence[Array], training: bool) -> tuple[Array, Any]:  # noqa: ARG002
        return backend.add_forward(inputs[0], inputs[1]), None

    def backward(
        self,
        backend: Backend,
        dy: Array,
        saved: Any,  # noqa: ARG002 - nothing was saved
        needs: Needs,  # noqa: ARG002 - both cost nothing
    ) -> Gradients:
        return backend.add_backward(dy)


class Concat(Operation):
    """Branches (N,C_i,H,W) joined along the channels."""

    op = "concat"

    def output_shape(self, inputs: list[Shape]) -> Shape:
        if len({shape[1:] for shape in inputs}) != 1:
            shapes.fail("Parallel", "branches", "outputs of one H and W", inputs)
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])

    def forward(self, backend: Backend, inputs: Sequence[Array], training: bool) -> tuple[Array, Any]:
        y = backend.concat_forward(inputs)
        return y, [int(x.shape[1]) for x in inputs] if training else None

    def backward(
        self,
        backend: Backend,
        dy: Array,
        saved: Any,
        needs: Needs,  # noqa: ARG002 - a piece costs no more than leaving it out
    ) -> Gradients:
        return tuple(backend.concat_backward(dy, sizes=saved))


class Cast(Operation):
    """A value in another dtype, "float32" or "bfloat16"; its gradient is cast the other way."""

    op = "cast"

    def __init__(self, dtype: str, input_dtype: str) -> None:
        self.dtype, self.input_dtype = dtype, input_dtype

    def attributes(self) -> dict[str, Any]:
        return {"dtype": self.dtype}

    def label(self) -> str:
        return f"to {self.dtype}"

    def output_shape(self, inputs: list[Shape]) -> Shape:
        return inputs[0]

    def forward(self, backend: Backend, inputs: Sequence[Array], training: bool) -> tuple[Array, Any]:  # noqa: ARG002
        return backend.cast_forward(inputs[0], dtype=self.dtype), None

    def backward(
        self,
        backend: Backend,
        dy: Array,
        saved: Any,  # noqa: ARG002 - nothing was saved
        needs: Needs,
    ) -> Gradients:
        return (backend.cast_backward(dy, input_dtype=self.input_dtype) if needs[0] else None,)


class Fused(Operation):
    """Several layers as one fused operation of the backend.  The first layer owns the parameters."""

    def __init__(self, op: str, layers: tuple[Layer, ...]) -> None:
        self.op, self.layers, self.owner = op, layers, layers[0]
        self._forward, self._backward = f"{op}_forward", f"{op}_backward"
        self._pool = layers[-1] if op.endswith("max_pool2d") else None

    def output_shape(self, inputs: list[Shape]) -> Shape:
        shape = inputs[0]
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def multiply_adds(self, inputs: list[Shape]) -> int:
        total, shape = 0, inputs[0]
        for layer in self.layers:
            total += layer.multiply_adds(shape)
            shape = layer.output_shape(shape)
        return total

    def forward(self, backend: Backend, inputs: Sequence[Array], training: bool) -> tuple[Array, Any]:
        arrays, options = self.layers[0].arguments(training)
        if self._pool is not None:
            options |= self._pool.attributes()
        y, saved = getattr(backend, self._forward)(*inputs, *arrays, **options, need_saved=training)
        return y, (inputs[0], saved) if training else None

    def backward(self, backend: Backend, dy: Array, saved: Any, needs: Needs) -> Gradients:
        owner, (x, kept) = self.layers[0], saved
        options = owner.backward_options() | owner.need_grads()
        if self._pool is not None:
            options |= self._pool.attributes()
        dx, dw, db = getattr(backend, self._backward)(
            dy, x, owner.params.get("weight"), kept, **options, need_dx=needs[0]
        )
        owner.set_grads(dw, db)
        return (dx,)


class BatchNorm2dAddReLU(Fused):
    """The end of a residual block: relu(batch_norm2d(z) + residual)."""

    def output_shape(self, inputs: list[Shape]) -> Shape:
        return Add().output_shape([self.layers[0].output_shape(inputs[0]), inputs[1]])

    def multiply_adds(self, inputs: list[Shape]) -> int:  # noqa: ARG002 - a batch norm has none
        return 0

    def backward(
        self,
        backend: Backend,
        dy: Array,
        saved: Any,
        needs: Needs,  # noqa: ARG002 - the operation gives both
    ) -> Gradients:
        owner, (z, kept) = self.layers[0], saved
        dz, dresidual, dw, db = backend.batch_norm2d_add_relu_backward(
            dy, z, owner.params.get("weight"), kept, **owner.backward_options(), **owner.need_grads()
        )
        owner.set_grads(dw, db)
        return dz, dresidual


class AddReLU(Operation):
    """The end of a residual block without a batch norm: relu(z + residual)."""

    op = "add_relu"

    def __init__(self, relu: Layer) -> None:
        self.layers = (relu,)

    def output_shape(self, inputs: list[Shape]) -> Shape:
        return Add().output_shape(inputs)

    def forward(self, backend: Backend, inputs: Sequence[Array], training: bool) -> tuple[Array, Any]:
        return backend.add_relu_forward(inputs[0], inputs[1], need_saved=training)

    def backward(
        self,
        backend: Backend,
        dy: Array,
        saved: Any,
        needs: Needs,  # noqa: ARG002 - both are one array
    ) -> Gradients:
        return backend.add_relu_backward(dy, saved)
