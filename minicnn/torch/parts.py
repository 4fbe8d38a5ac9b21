"""Which nodes of a traced forward are operations that minicnn has, and which torch.nn module each is.

A call of a function is read as the call of a module without parameters: ``F.max_pool2d(x, 2)`` as
``nn.MaxPool2d(2)``.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from minicnn.torch import tracing


class Part(NamedTuple):
    """One operation of a forward: the contract's name, the nodes it reads, and what it is in torch."""

    op: str
    inputs: tuple[fx.Node, ...]
    module: nn.Module | None
    target: str | None
    """The module's name within the traced one; None for a function."""
    in_place: bool = False


MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv2d",
    nn.Linear: "dense",
    nn.BatchNorm2d: "batch_norm2d",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.MaxPool2d: "max_pool2d",
    nn.AvgPool2d: "avg_pool2d",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d",
}
"""torch.nn's classes, of which subclasses are not taken: their forward may be another."""

ACTIVATIONS = (nn.ReLU, nn.ReLU6)
"""Of these, the ones that may change their input, and that minicnn computes no faster than torch alone."""

RELUS = (F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_")
IN_PLACE = (F.relu_, torch.relu_, "relu_", operator.iadd, "add_")
OPERATORS = {f"i{name}" for name in tracing.IN_PLACE}
"""Names of the functions of `operator` that change their first argument."""
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
POOLS: dict[Any, tuple[type[nn.Module], str]] = {
    F.max_pool2d: (nn.MaxPool2d, "kernel_size stride padding dilation ceil_mode return_indices"),
    torch.max_pool2d: (nn.MaxPool2d, "kernel_size stride padding dilation ceil_mode"),
    F.avg_pool2d: (
        nn.AvgPool2d, "kernel_size stride padding ceil_mode count_include_pad divisor_override"
    ),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, "output_size"),
}  # fmt: skip
"""A pooling function -> the module's class, and the names of the arguments after x."""


def part_of(node: fx.Node, root: nn.Module) -> Part | None:
    """The node as an operation of the contract, or None if it is none."""
    if node.op == "call_module":
        return _module_part(node, root)
    if node.op not in ("call_function", "call_method"):
        return None
    target: Any = node.target
    if target in RELUS or target is F.relu6:
        kind = nn.ReLU6 if target is F.relu6 else nn.ReLU
        in_place = target in IN_PLACE or bool(node.kwargs.get("inplace")) or True in node.args[1:]
        return _function_part(MODULES[kind], node, kind(inplace=in_place), in_place)
    if target in ADDITIONS:
        return _addition(node)
    if target in (torch.cat, torch.concat):
        return _concatenation(node)
    if target in POOLS:
        return _pool(node)
    return None


def changes_in_place(node: fx.Node, root: nn.Module) -> bool:
    """Whether a node changes a value, as far as its name or an option of it says so."""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = getattr(node.target, "__name__", str(node.target))
    named = name.endswith("_") and not name.endswith("__")
    return named or name in OPERATORS or any(node.kwargs.get(option) for option in ("inplace", "out"))


def unsupported(module: nn.Module) -> str | None:
    """Why minicnn cannot run a module of one of `MODULES`, or None if it can."""
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"padding_mode={module.padding_mode!r}"
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return "return_indices=True"
    if isinstance(module, nn.AvgPool2d) and module.divisor_override is not None:
        return f"divisor_override={module.divisor_override}"
    return None


def _module_part(node: fx.Node, root: nn.Module) -> Part | None:
    target = str(node.target)
    module = root.get_submodule(target)
    op = MODULES.get(type(module))
    if op is None or node.kwargs or len(node.args) != 1 or not isinstance(node.args[0], fx.Node):
        return None
    if "forward" in vars(module) or unsupported(module):
        return None
    return Part(op, (node.args[0],), module, target, isinstance(module, ACTIVATIONS) and module.inplace)


def _function_part(op: str, node: fx.Node, module: nn.Module, in_place: bool = False) -> Part | None:
    x = node.args[0] if node.args else node.kwargs.get("input")
    return Part(op, (x,), module, None, in_place) if isinstance(x, fx.Node) else None


def _addition(node: fx.Node) -> Part | None:
    both = node.args
    if node.kwargs or len(both) != 2 or not all(isinstance(n, fx.Node) for n in both):
        return None
    return Part("add", tuple(both), None, None, node.target in IN_PLACE)  # type: ignore[arg-type]


def _concatenation(node: fx.Node) -> Part | None:
    given = dict(zip(("tensors", "dim"), node.args, strict=False)) | node.kwargs
    tensors: Any = given.get("tensors")
    if given.get("dim") != 1 or not isinstance(tensors, list | tuple) or len(given) != 2:
        return None
    nodes = tuple(tensors)
    return Part("concat", nodes, None, None) if all(isinstance(n, fx.Node) for n in nodes) else None


def _pool(node: fx.Node) -> Part | None:
    kind, names = POOLS[node.target]
    options = dict(zip(names.split(), node.args[1:], strict=False))
    options |= {name: value for name, value in node.kwargs.items() if name != "input"}
    if any(isinstance(value, fx.Node) for value in options.values()) or options.get("stride") == []:
        return None
    module = kind(**options)
    op = MODULES[kind]
    return None if unsupported(module) else _function_part(op, node, module)
