"""The same model as a torch.nn module, and back: the oracle, the peer, and the way on to PyTorch.

Importing this module imports torch.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from minicnn import layers
from minicnn.backends import Backend, Pair
from minicnn.graph.graph import INPUT, Builder, expands
from minicnn.graph.operations import LayerOperation, operation_name
from minicnn.layers.conv2d import same_padding
from minicnn.layers.layer import Layer


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
                self.add_module(own_name, module)

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
) -> layers.Sequential:
    """A torch.nn.Sequential of known layers as a minicnn model with the same weights.

    A module at several places is one layer at several places; a module whose parameters have requires_grad
    False is a frozen layer.  With an ``input_shape`` (C,H,W) both sides are compared, in evaluation, on
    two random images.

    Raises: ValueError naming a layer that minicnn does not have, an option it does not support, a module
            with hooks or a forward of its own; or if the two sides differ
    """
    if not isinstance(module, nn.Sequential):
        raise ValueError(f"[from_torch] module: expected nn.Sequential, got {type(module).__name__}")
    known: dict[int, Layer] = {}
    model = _layer(module, known)
    assert isinstance(model, layers.Sequential)
    if input_shape is not None:
        model.output_shape(input_shape)
        model.input_shape = input_shape
    dtype = next((a.dtype for a in module.state_dict().values() if a.is_floating_point()), torch.float32)
    model.bind(backend, dtype=str(dtype).removeprefix("torch."))
    model.load_state_dict(module.state_dict())
    for part in module.modules():
        layer = known[id(part)]
        if layer.params:
            layer.requires_grad = _requires_grad(part)
    if input_shape is not None:
        _compare(model, module, input_shape)
    return model


def _requires_grad(module: nn.Module) -> bool:
    """Whether a module's own parameters are trained, which must be all of them or none."""
    wanted = {parameter.requires_grad for parameter in module.parameters(recurse=False)}
    _refuse(module, "requires_grad=False of some of its parameters", len(wanted) > 1)
    return True in wanted


def _compare(model: layers.Sequential, module: nn.Module, input_shape: tuple[int, ...]) -> None:
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
    match layer:
        case layers.Conv2d():
            return nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                **{**layer.conv._asdict(), "padding": _torch_padding(layer)},
                bias=layer.bias,
            )
        case layers.MaxPool2d():
            kernel, stride, padding, dilation, ceil_mode = layer.pool
            return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
        case layers.AvgPool2d():
            kernel, stride, padding, _, ceil_mode = layer.pool
            return nn.AvgPool2d(kernel, stride, padding, ceil_mode, layer.count_include_pad)
        case layers.AdaptiveAvgPool2d():
            return nn.AdaptiveAvgPool2d(layer.output_size)
        case layers.BatchNorm2d():
            return nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum, layer.affine)
        case layers.Dense():
            return nn.Linear(layer.in_features, layer.out_features, layer.bias)
        case layers.Dropout():
            return nn.Dropout(layer.p)
        case layers.ReLU():
            return nn.ReLU()
        case layers.Flatten():
            return nn.Flatten()
        case layers.Softmax():
            return nn.Softmax(1)
        case layers.Container():
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
    match module:
        case nn.Sequential():
            # named_children() would leave out a module's second place
            return layers.Sequential(
                {name: _layer(child, known) for name, child in module._modules.items() if child is not None}
            )
        case GraphModule():
            return module.container.with_children({key: _layer(part, known) for key, part in module.parts})
        case nn.Conv2d():
            return _conv2d_layer(module)
        case nn.MaxPool2d():
            _refuse(module, "return_indices", module.return_indices)
            return layers.MaxPool2d(
                _ints(module.kernel_size), _ints(module.stride), _ints(module.padding),
                _ints(module.dilation), module.ceil_mode,
            )  # fmt: skip
        case nn.AvgPool2d():
            _refuse(module, "divisor_override", module.divisor_override)
            return layers.AvgPool2d(
                _ints(module.kernel_size), _ints(module.stride), _ints(module.padding),
                module.ceil_mode, module.count_include_pad,
            )  # fmt: skip
        case nn.AdaptiveAvgPool2d():
            sizes = module.output_size
            _refuse(module, f"output_size={sizes}", isinstance(sizes, (tuple, list)) and None in sizes)
            return layers.AdaptiveAvgPool2d(_ints(sizes))
        case nn.BatchNorm2d():
            _refuse(module, "track_running_stats=False", not module.track_running_stats)
            return layers.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine)
        case nn.Linear():
            return layers.Dense(module.in_features, module.out_features, module.bias is not None)
        case nn.Dropout():
            return layers.Dropout(module.p)
        case nn.ReLU():
            return layers.ReLU()
        case nn.Flatten():
            _refuse(module, "dims other than (1, -1)", (module.start_dim, module.end_dim) != (1, -1))
            return layers.Flatten()
        case nn.Softmax():
            _refuse(module, f"dim={module.dim}", module.dim != 1)
            return layers.Softmax()
    raise ValueError(f"[from_torch] module: expected one that minicnn has, got {type(module).__name__}")


def _torch_padding(layer: layers.Conv2d) -> Pair | str:
    """nn.Conv2d pads both sides of an axis alike, except with "same"."""
    padding = layer.conv.padding
    if len(padding) == 2:
        return padding
    if layer.conv.stride == (1, 1) and padding == same_padding(layer.kernel_size, layer.conv.dilation):
        return "same"
    raise ValueError(
        "[to_torch] padding: expected the same before and after the image, or padding='same', as in "
        f"nn.Conv2d, got {padding}"
    )


def _conv2d_layer(module: nn.Conv2d) -> layers.Conv2d:
    _refuse(module, f"padding_mode={module.padding_mode!r}", module.padding_mode != "zeros")
    padding = module.padding if isinstance(module.padding, str) else _ints(module.padding)
    return layers.Conv2d(
        module.in_channels, module.out_channels, _ints(module.kernel_size), _ints(module.stride),
        padding, _ints(module.dilation), module.groups, module.bias is not None,
    )  # fmt: skip


def _refuse_own_ways(module: nn.Module) -> None:
    """Raise ValueError for hooks, and for a forward that is not that of torch's own module."""
    hooks = (
        module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    )  # fmt: skip
    lazy = isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()
    _refuse(module, "a lazy module that has seen no batch", lazy)
    _refuse(module, "a module with hooks", any(hooks))
    own = "forward" in vars(module)
    for cls in type(module).__mro__:
        if cls is GraphModule or cls.__module__.startswith("torch.nn.modules"):
            break
        own = own or "forward" in vars(cls) or "_conv_forward" in vars(cls)
    else:
        return  # none of torch's, which is refused by its name
    _refuse(module, "a forward of its own", own)


def _refuse(module: nn.Module, option: str, wrong: Any) -> None:
    if wrong:
        raise ValueError(f"[from_torch] {type(module).__name__}: {option} is not supported")


def _ints(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
