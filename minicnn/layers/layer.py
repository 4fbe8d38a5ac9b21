"""The base of all layers: parameters, gradients, buffers, and how they get their backend.

A layer is bound once, by the outermost container, the Trainer or predict: binding draws its
parameters and moves them to a backend.  Until then it is a description without arrays.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self
from zlib import crc32

import numpy as np

from minicnn import precision as precisions
from minicnn import shapes, weights
from minicnn.backends import Array, Backend, Pair, get_backend
from minicnn.shapes import Padding

if TYPE_CHECKING:
    from minicnn.graph.graph import Builder

Shape = tuple[int, ...]
Generators = Callable[[str], np.random.Generator]
"""The seeded generator of a parameter, by its name within the layer."""


def pair(value: int | Pair) -> Pair:
    """3 -> (3, 3), as torch.nn's arguments.  Raises ValueError unless it is an integer or two."""
    values: Any = (value, value) if shapes.is_integer(value) else value
    if not (isinstance(values, (tuple, list)) and len(values) == 2 and all(map(shapes.is_integer, values))):
        shapes.fail("pair", "value", "an integer or two", value)
    return operator.index(values[0]), operator.index(values[1])


def sides(layer: str, value: int | Padding) -> Padding:
    """One number, a pair or (top, left, bottom, right), as a pair where both sides of each axis are equal.

    Raises ValueError unless it is one, two or four integers, of four none of them negative.
    """
    if not (isinstance(value, tuple | list) and len(value) == 4):
        return pair(value)
    shapes.check_padding(layer, "padding", value)
    top, left, bottom, right = map(operator.index, value)
    return (top, left) if (top, left) == (bottom, right) else (top, left, bottom, right)


def torch_padding(padding: Padding, module: str) -> Pair:
    """The padding of a torch.nn module, which pads both sides of an axis alike.  Raises ValueError."""
    if len(padding) == 2:
        return padding
    raise ValueError(
        "[to_torch] padding: expected the same before and after the image, as in "
        f"nn.{module}, got {padding}"
    )


def refuse_option(module: Any, option: str, wrong: Any) -> None:
    """Raise ValueError if a torch.nn module has an option, in words, that its layer does not have."""
    if wrong:
        raise ValueError(f"[from_torch] {type(module).__name__}: {option} is not supported")


class Layer:
    """Parameters and child layers; forward and backward are functions of their arguments.

    params, grads and buffers map torch.nn's names to arrays of the backend; ``backward`` overwrites
    ``grads``.  Nothing of a forward pass is kept in the layer: ``saved`` carries it to backward.
    A layer whose ``requires_grad`` is False is frozen: see `freeze`.
    """

    op: str = ""
    """The operation of the contract that the layer is; a user's own layer needs none."""

    torch_name: str = ""
    """The class in torch.nn with the same parameters and results, if there is one."""

    ignored_prefixes: tuple[str, ...] = ()
    """`load_state_dict` passes over keys that begin so: torchvision's auxiliary heads."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.bound_backend: Backend | None = None
        self.dtype = self.precision = "float32"
        self.requires_grad = True

    # ---- what a layer defines --------------------------------------------------------------------

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        """(y, saved); ``saved`` is what backward needs, None in evaluation."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        """dx (None if not needed) for an upstream gradient dy; sets ``grads``."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def attributes(self) -> dict[str, Any]:
        """The attributes of the layer's operation, as its fused operations take them."""
        return {}

    def arguments(self, training: bool) -> tuple[tuple[Array | None, ...], dict[str, Any]]:  # noqa: ARG002
        """The arrays and the options that a fused operation which begins with this layer takes after x."""
        return (), {}

    def backward_options(self) -> dict[str, Any]:
        """The options of the backward pass of a fused operation which begins with this layer."""
        return {}

    def torch_arguments(self) -> dict[str, Any]:
        """What ``torch_name`` takes to make the same layer."""
        return {}

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """The layer, unbound, that does what ``module``, a torch.nn module of ``torch_name``, does.

        Raises: ValueError naming an option of the module that the layer does not have
        """
        raise NotImplementedError(f"{cls.__name__} does not define from_torch, given {module}")

    def add_to(self, graph: Builder, value: int, name: str) -> int:
        """Add the children's nodes to a graph, which reads ``value``; the number of the value they give.

        Only containers define it.  ``name`` is the container's full name.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define add_to")

    def initial_params(self, generator: Generators) -> dict[str, np.ndarray]:  # noqa: ARG002 - for overriders
        """First values of the parameters, drawn each from a generator of its own."""
        return {}

    def initial_buffers(self) -> dict[str, np.ndarray]:
        """First values of the buffers, which are state without a gradient."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of y for one sample, (C,H,W) or (features,)."""
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:  # noqa: ARG002 - for overriders
        """Multiply-adds of a forward pass of one sample of this shape."""
        return 0

    def named_children(self) -> list[tuple[str, Layer]]:
        """Child layers with their names; the name "" adds nothing to the children's own names."""
        return []

    # ---- binding -----------------------------------------------------------------------------------

    @property
    def backend(self) -> Backend:
        """The backend that holds the arrays.  Raises ValueError if the layer is not bound to one."""
        if self.bound_backend is None:
            shapes.fail(type(self).__name__, "backend", "a layer that bind() has bound", "an unbound one")
        return self.bound_backend

    def bound(self) -> Backend:
        """The backend that holds the arrays; an unbound layer is bound to "auto" first."""
        if self.bound_backend is None:
            self.bind("auto")
        return self.backend

    def bind(
        self, backend: str | Backend, *, seed: int = 0, dtype: str = "float32", precision: str | None = None
    ) -> None:
        """Draw the parameters and put them on this backend, children included.

        Each parameter has a generator seeded by ``seed`` and its own full name, so that a change
        elsewhere in the model moves none of its values.  ``precision`` is as in `set_precision`; None
        keeps the one that the layer has.
        """
        if dtype not in ("float32", "float64"):
            raise ValueError(f"[{type(self).__name__}] dtype: expected float32 or float64, got {dtype}")
        table = get_backend(backend) if isinstance(backend, str) else backend
        precision = self.precision if precision is None else precision
        precisions.check(type(self).__name__, precision, dtype=dtype, backend=table)
        for name, layer in self.named_layers():
            layer._bind_own(table, f"{name}." if name else "", seed, dtype)
        self.set_precision(precision)

    def set_precision(self, precision: str) -> None:
        """Compute in this precision from now on, children included; the parameters stay as they are.

        Args:   precision float32, bfloat16, or tf32 on cuda: see `minicnn.precision`
        Raises: ValueError where the dtype or the backend does not have it
        """
        precisions.check(type(self).__name__, precision, dtype=self.dtype, backend=self.backend)
        self._take_precision(precision)

    def _take_precision(self, precision: str) -> None:
        precisions.check_name(type(self).__name__, precision)
        for _, layer in self.named_layers():
            layer.precision = precision

    def _bind_own(self, backend: Backend, prefix: str, seed: int, dtype: str) -> None:
        def generator(name: str) -> np.random.Generator:
            return np.random.default_rng([seed, crc32(f"{prefix}{name}".encode())])

        self.bound_backend, self.dtype = backend, dtype
        params, buffers = self.initial_params(generator), self.initial_buffers()
        self.params = {name: backend.asarray(a.astype(dtype)) for name, a in params.items()}
        self.buffers = {name: backend.asarray(_cast_float(a, dtype)) for name, a in buffers.items()}
        self.grads = {}

    def with_params(self, params: dict[str, Array]) -> Self:
        """A copy of this layer with other parameters, and with everything else shared."""
        twin = copy.copy(self)
        twin.params, twin.grads = params, {}
        return twin

    # ---- gradients -----------------------------------------------------------------------------------

    def freeze(self, *names: str) -> None:
        """Keep the layers of these full names, and all below them, as they are in training.

        ``layer1`` freezes all of layer1; ``*``, ``?`` and ``[...]`` stand for other characters, as in
        file names.  A frozen layer gets no gradients, no optimizer step and no weight decay, and a
        frozen batch norm runs in evaluation mode, so that its running statistics stay as well.  What
        is nearer to the input than the first layer left to train has no backward pass at all.

        Torch: requires_grad_(False) on the parameters, and eval() on the batch norms.
        Raises: ValueError naming a name that no layer with parameters bears; nothing is frozen then
        """
        if self.bound_backend is None:
            shapes.fail("freeze", "layer", "one bound to a backend, which gives it parameters", self)
        frozen: list[Layer] = []
        for pattern in names:
            chosen = [layer for name, layer in self.named_layers() if name and fnmatchcase(name, pattern)]
            deep = [layer for top in chosen for _, layer in top.named_layers()]
            below = [layer for layer in deep if layer.params or layer.buffers]
            if not below:
                known = ", ".join(name for name, _ in self.named_children())
                raise ValueError(
                    f"[freeze] names: expected layers with parameters, in or below {known}; got {pattern}"
                )
            frozen += below
        for layer in frozen:
            layer.requires_grad, layer.grads = False, {}

    def is_trainable(self) -> bool:
        """Whether this layer or one below it has parameters that are not frozen."""
        return any(layer.params and layer.requires_grad for _, layer in self.named_layers())

    def need_grads(self) -> dict[str, Any]:
        """The arguments need_dw and need_db of this layer's backward operation."""
        return {
            "need_dw": self.requires_grad and "weight" in self.params,
            "need_db": self.requires_grad and "bias" in self.params,
        }

    def set_grads(self, dw: Array | None, db: Array | None) -> None:
        """Keep the gradients of a backward pass, those that it needed."""
        self.grads = {name: a for name, a in (("weight", dw), ("bias", db)) if a is not None}

    # ---- names ---------------------------------------------------------------------------------------

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all below it with full names, parents first; its own name is ``prefix``."""
        yield prefix, self
        for name, child in self.named_children():
            full = join(prefix, name)
            if type(child).named_children is Layer.named_children:  # a generator more takes longer
                yield full, child
            else:
                yield from child.named_layers(full)

    def named_parameters(self, *, trainable_only: bool = False) -> dict[str, Array]:
        """Full dotted name -> parameter, the backend's own arrays; maybe without frozen layers'.

        A layer at several places is listed once, under its first name, as in torch.
        """
        return self._named(lambda layer: layer.params, trainable_only)

    def named_gradients(self) -> dict[str, Array]:
        """Full dotted name -> gradient of the last backward pass."""
        return self._named(lambda layer: layer.grads)

    def named_buffers(self, *, trainable_only: bool = False) -> dict[str, Array]:
        """Full dotted name -> buffer; maybe without frozen layers'."""
        return self._named(lambda layer: layer.buffers, trainable_only)

    def _named(
        self, arrays: Callable[[Layer], dict[str, Array]], trainable_only: bool = False
    ) -> dict[str, Array]:
        found: dict[str, Array] = {}
        seen: set[int] = set()
        for prefix, layer in self.named_layers():
            if id(layer) not in seen and (layer.requires_grad or not trainable_only):
                seen.add(id(layer))
                for name, array in arrays(layer).items():
                    found[join(prefix, name)] = array
        return found

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers under torch.nn's names.

        A layer at several places has each of its names here, as in torch.
        """
        backend = self.bound()
        return {
            join(prefix, name): np.array(backend.to_numpy(array), order="C")
            for prefix, layer in self.named_layers()
            for name, array in [*layer.params.items(), *layer.buffers.items()]
        }

    def state_shapes(self) -> dict[str, np.ndarray]:
        """What `state_dict` will hold when bound in float32, as zeros that take no memory."""
        found = {}
        for prefix, layer in self.named_layers():
            for name, a in (layer._undrawn_params() | layer.initial_buffers()).items():
                kind = np.float32 if a.dtype.kind == "f" else a.dtype.type
                found[join(prefix, name)] = np.broadcast_to(kind(0), a.shape)
        return found

    def param_shapes(self) -> dict[str, Shape]:
        """The shapes of this layer's own parameters, bound or not."""
        return {name: tuple(a.shape) for name, a in (self.params or self._undrawn_params()).items()}

    def _undrawn_params(self) -> dict[str, np.ndarray]:
        """This layer's own parameters as zeros that take no memory; no generator is touched."""
        nothing: Any = _NoDraw()
        return {} if isinstance(self, RandomLayer) else self.initial_params(lambda _: nothing)

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Copy in a state dict, minicnn's or torch's; nothing changes unless all of it fits.

        A dictionary that holds a state dict beside other things will do, and so will names that all
        begin with the prefix of a module around the model: see `minicnn.weights.take`.
        Returns the keys that were ignored: those of auxiliary heads (``ignored_prefixes``).
        Raises ValueError naming missing and unexpected keys, or the key whose shape differs.
        """
        backend = self.bound()
        try:
            taken = weights.take(state, self.state_dict(), ignored_prefixes=self.ignored_prefixes)
        except weights.Misfit as error:
            raise ValueError(f"[load_state_dict] {error}") from None
        for prefix, layer in self.named_layers():
            for own in (layer.params, layer.buffers):
                for name in own:
                    own[name] = backend.asarray(taken.state[join(prefix, name)])
        return taken.ignored

    def generator_state(self) -> dict[str, Any]:
        """State of the layers' random generators by full name; JSON can hold it."""
        return {
            name: layer.generator.bit_generator.state
            for name, layer in self.named_layers()
            if isinstance(layer, RandomLayer)
        }

    def set_generator_state(self, states: dict[str, Any]) -> None:
        """The inverse of `generator_state`."""
        layers = {n: layer for n, layer in self.named_layers() if isinstance(layer, RandomLayer)}
        if layers.keys() != states.keys():
            raise ValueError(
                f"[set_generator_state] layers: expected {sorted(layers)}, got {sorted(states)}"
            )
        for name, layer in layers.items():
            layer.generator.bit_generator.state = states[name]

    def label(self) -> str:
        """The layer in one line, for tables."""
        return repr(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _NoDraw:
    """Stands for a generator where only the shapes of what it draws matter: its zeros take no memory."""

    def normal(self, _mean: float, _std: float, shape: Any) -> np.ndarray:
        """Zeros of this shape."""
        return np.broadcast_to(0.0, shape)

    uniform = normal


class RandomLayer(Layer):
    """A layer that draws random numbers in training, from its own seeded generator on the host."""

    generator: np.random.Generator

    fixed: Callable[[RandomLayer, Shape], Array] | None = None
    """While a step is captured: the array that will have what `draw` gives for a shape in each replay."""

    def draw(self, shape: Shape) -> np.ndarray:
        """What the layer draws for an input of this shape."""
        raise NotImplementedError(f"{type(self).__name__} does not define draw")

    def drawn(self, shape: Shape) -> Array:
        """What `draw` gives, as an array of the backend."""
        return self.backend.asarray(self.draw(shape)) if self.fixed is None else self.fixed(self, shape)

    def initial_params(self, generator: Generators) -> dict[str, np.ndarray]:
        self.generator = generator("generator")
        return {}


def is_users_own(layer: Layer) -> bool:
    """Whether the layer is none of the library's, so that it may compute on the host."""
    return type(layer).__module__.partition(".")[0] != "minicnn"


def join(prefix: str, name: str) -> str:
    """A full name of a container's and its child's, either of which may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _cast_float(a: np.ndarray, dtype: str) -> np.ndarray:
    return a.astype(dtype) if a.dtype.kind == "f" else a
