"""The same model as a torch.nn module, and back: the oracle, the peer, and the way on to PyTorch.

Importing this module imports torch.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from minicnn import layers
from minicnn.backends import Backend
from minicnn.graph.graph import INPUT, Builder, expands
from minicnn.graph.operations import LayerOperation, operation_name
from minicnn.layers.layer import Layer, refuse_option
from minicnn.layers.model import Model
from minicnn.torch_tracing import network


class GraphModule(nn.Module):
    """A container as a torch.nn module: its children, and the nodes that say what meets where.

    A child whose name is empty adds nothing to the names of what it holds; see `Layer.named_children`.
    """

    def __init__(self, container: layers.Container, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.container = container.with_children({})
        # A plain list, which torch does not look into: names come from what is registered below.
        self.parts = [*parts.items()]
        keys = {id(child): key for key, child in container.children.items()}
        outline = Outline()
        self.output = container.add_to(outline, INPUT, "")
        self.nodes = [
            (node.op, node.inputs, node.output, parts[keys[id(node.owner)]] if node.owner else None)
            for node in outline.nodes
        ]
        for (name, _), (_, part) in zip(container.named_children(), self.parts, strict=True):
            for own_name, module in [(name, part)] if name else part.named_children():
                self._add_nested(own_name, module)

    def _add_nested(self, name: str, module: nn.Module) -> None:
        """Register a module under a name whose dots are modules that hold others."""
        *holders, own = name.split(".")
        place: nn.Module = self
        for holder in holders:
            if holder not in place._modules:
                place.add_module(holder, nn.Module())
            place = place.get_submodule(holder)
        place.add_module(own, module)

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for op, inputs, output, part in self.nodes:
            tensors = [values[value] for value in inputs]
            if part is not None:
                values[output] = part(*tensors)
            else:
                values[output] = torch.cat(tensors, 1) if op == "concat" else tensors[0] + tensors[1]
        return values[self.output]


class Outline(Builder):
    """The nodes of one container alone: each of its children is one node, a container too."""

    def layer(self, layer: Layer, value: int, name: str) -> int:
        return self.node(LayerOperation(layer), (value,), (name,))


def to_torch(model: Layer) -> nn.Module:
    """The model as torch.nn modules with the same names, weights and dtype, in training mode.

    Frozen layers have requires_grad False.  A layer at several places is one module at several places.
    Raises: ValueError naming a layer that is not minicnn's own, or whose class has a forward of its own
    """
    known: dict[int, nn.Module] = {}
    module = _module(model, known)
    state = {name: torch.from_numpy(a) for name, a in model.state_dict().items()}
    module.to(getattr(torch, model.dtype)).load_state_dict(state)
    for _, layer in model.named_layers():
        if not layer.requires_grad and id(layer) in known:
            known[id(layer)].requires_grad_(False)
    return module


def from_torch(
    module: nn.Module, *, backend: str | Backend = "auto", input_shape: tuple[int, ...] | None = None
) -> Model:
    """A torch.nn model whose operations minicnn has, as a minicnn model with the same weights.

    nn.Sequential becomes Sequential.  A module with a forward of its own, such as torchvision's models,
    becomes a `Network` of what torch.fx traces of it in evaluation; parts that are not called there, such
    as auxiliary heads, are left out.
    A module at several places is one layer at several places; a module whose parameters have requires_grad
    False is a frozen layer.  With an ``input_shape`` (C,H,W) both sides are compared, in evaluation, on
    two random images.

    Raises: ValueError naming a layer that minicnn does not have, an option it does not support, a module
            with hooks or a forward of its own; or if the two sides differ
    """
    whole = isinstance(module, GraphModule) and isinstance(module.container, Model)
    if not (whole or isinstance(module, nn.Sequential) or _has_own_forward(module)):
        raise ValueError(
            "[from_torch] module: expected nn.Sequential or a module of one's own, got "
            f"{type(module).__name__}"
        )
    known: dict[int, Layer] = {}
    model = _layer(module, known)
    assert isinstance(model, Model)
    if input_shape is not None:
        model.output_shape(input_shape)
        model.input_shape = input_shape
    dtype = next((a.dtype for a in module.state_dict().values() if a.is_floating_point()), torch.float32)
    model.bind(backend, dtype=str(dtype).removeprefix("torch."))
    wanted = model.state_dict()
    model.load_state_dict({name: a for name, a in module.state_dict().items() if name in wanted})
    for part in module.modules():
        layer = known.get(id(part))
        if layer is not None and layer.params:
            layer.requires_grad = _requires_grad(part)
    if input_shape is not None:
        _compare(model, module, input_shape)
    return model


def _requires_grad(module: nn.Module) -> bool:
    """Whether a module's own parameters are trained, which must be all of them or none."""
    wanted = {parameter.requires_grad for parameter in module.parameters(recurse=False)}
    refuse_option(module, "requires_grad=False of some of its parameters", len(wanted) > 1)
    return True in wanted


def _compare(model: Model, module: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless both sides give the same for two random images, in evaluation."""
    x = np.random.default_rng(0).standard_normal((2, *input_shape)).astype(model.dtype)
    modes = {part: part.training for part in module.modules()}
    parameter = next(module.parameters(), None)
    try:
        with torch.no_grad():
            images = torch.from_numpy(x).to(parameter.device if parameter is not None else "cpu")
            expected = module.eval()(images).cpu().numpy()
    finally:
        for part, mode in modes.items():
            part.training = mode
    actual = model.predict(x)
    scale = float(np.abs(expected).max(initial=0))
    difference = float(np.abs(actual - expected).max(initial=0))
    if not difference <= 1e-3 * scale + 1e-5:
        raise ValueError(
            f"[from_torch] module: expected the results of the minicnn model, got others: they differ by "
            f"{difference:.3g} where the largest is {scale:.3g}"
        )


def _module(layer: Layer, known: dict[int, nn.Module]) -> nn.Module:
    """The module of a layer; ``known`` has those of the layers before, by id."""
    if id(layer) not in known:
        known[id(layer)] = _new_module(layer, known)
    return known[id(layer)]


def _new_module(layer: Layer, known: dict[int, nn.Module]) -> nn.Module:
    if not expands(layer) and operation_name(layer) != layer.op:
        raise ValueError(f"[to_torch] layer: expected one of minicnn's, got {type(layer).__name__}")
    if layer.torch_name:
        twin: nn.Module = getattr(nn, layer.torch_name)(**layer.torch_arguments())
        return twin
    if isinstance(layer, layers.Container):
        parts = {key: _module(child, known) for key, child in layer.children.items()}
        if isinstance(layer, layers.Sequential) and all(parts):
            return nn.Sequential(OrderedDict(parts))
        return GraphModule(layer, parts)
    raise ValueError(f"[to_torch] layer: expected one of minicnn's, got {type(layer).__name__}")


def _layer(module: nn.Module, known: dict[int, Layer]) -> Layer:
    """The layer of a module; ``known`` has those of the modules before, by id."""
    if id(module) not in known:
        known[id(module)] = _new_layer(module, known)
    return known[id(module)]


def _new_layer(module: nn.Module, known: dict[int, Layer]) -> Layer:
    _refuse_own_ways(module)
    if isinstance(module, nn.Sequential):
        # named_children() would leave out a module's second place
        return layers.Sequential(
            {name: _layer(child, known) for name, child in module._modules.items() if child is not None}
        )
    if _has_own_forward(module):
        return network(module, lambda part, own: _layer(part, known if own else {}))
    if isinstance(module, GraphModule):
        return module.container.with_children({key: _layer(part, known) for key, part in module.parts})
    for kind in (getattr(layers, name) for name in layers.__all__):
        if kind.torch_name and isinstance(module, getattr(nn, kind.torch_name)):
            layer: Layer = kind.from_torch(module)
            return layer
    raise ValueError(f"[from_torch] module: expected one that minicnn has, got {type(module).__name__}")


def _has_own_forward(module: nn.Module) -> bool:
    """Whether the module is of a class of one's own, which is none of torch.nn's with another forward."""
    if isinstance(module, GraphModule):
        return False
    first = next(cls for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn"))
    return first is nn.Module and "forward" not in vars(module)


def _refuse_own_ways(module: nn.Module) -> None:
    """Raise ValueError for hooks, and for a forward that is not that of torch's own module."""
    hooks = (
        module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    )  # fmt: skip
    lazy = isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()
    refuse_option(module, "a lazy module that has seen no batch", lazy)
    refuse_option(module, "a module with hooks", any(hooks))
    own = "forward" in vars(module)
    for cls in type(module).__mro__:
        if cls is GraphModule or _has_own_forward(module) or cls.__module__.startswith("torch.nn.modules"):
            break
        own = own or "forward" in vars(cls) or "_conv_forward" in vars(cls)
    else:
        return  # none of torch's, which is refused by its name
    refuse_option(module, "a forward of its own", own)
