"""A module with a forward of its own as a `Network`: torch.fx reads what it calls.

Importing this module imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import fx, nn

from minicnn.layers.layer import Layer
from minicnn.layers.network import Network, Wire

TORCH = str(Path(torch.__file__).parent)
LayerOf = Callable[[nn.Module, bool], Layer]
"""The layer of a torch.nn module, and whether that is a part of the traced one or made for a call."""
FLATTENS = (torch.flatten, "flatten")
SAME_MEMORY = (nn.Identity, nn.Flatten, nn.Dropout)
"""Modules whose result can be their input itself."""


class _Tracer(fx.Tracer):
    """torch.fx's own, which looks into every module that is not one of torch.nn's, with ``+=`` kept."""

    record_stack_traces = True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        from minicnn.torch.tracing import Value

        return Value(node, self)


def network(module: nn.Module, layer_of: LayerOf) -> Network:
    """The network that does what the module's forward does in evaluation; dropout is a layer of it.

    Raises: ValueError naming the module, the operation and the line of what minicnn does not have
    """
    from minicnn.torch.tracing import ASKS_TYPE, Untraceable, asks_type

    training = {part: part.training for part in module.modules()}
    try:
        if any(asks_type(type(part)) for part in module.modules()):
            raise Untraceable(ASKS_TYPE)
        graph = _Tracer().trace(module.eval())
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        kind = type(module).__name__
        raise ValueError(
            f"[from_torch] {kind}: expected a forward that torch.fx can trace: {line}"
        ) from error
    finally:
        for part, mode in training.items():
            part.training = mode
    children: dict[str, Layer] = {}
    wires: list[Wire] = []
    values: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            if values:
                _refuse(module, node, "one input")
            values[node] = 0
        elif node.op == "output":
            last = node.args[0]
            if not isinstance(last, fx.Node) or values.get(last) != len(wires):
                _refuse(module, node, "one output, which is computed last")
        else:
            changed = _changed(module, node)
            if changed is not None and changed in _read_later(module, node):
                _refuse(module, node, "no change in place that others read")
            if node.users:
                _add(module, node, children, wires, values, layer_of)
    return Network(children, wires)


def _add(
    module: nn.Module, node: fx.Node, children: dict[str, Layer], wires: list[Wire],
    values: dict[fx.Node, int], layer_of: LayerOf,
) -> None:  # fmt: skip
    """Add a node's wire, and its layer if it is one that is not there yet."""
    what, made, inputs = _meaning(module, node)
    if made is not None and node.op != "call_module":  # a function, whose layer needs a name of its own
        what, taken = node.name, {*children, *dict(module.named_modules())}
        while what in taken:
            what += "_"
    if made is not None and type(made) is nn.Identity:
        values[node] = values[inputs[0]]
        return
    if made is not None and what not in children:
        try:
            children[what] = layer_of(made, node.op == "call_module")
        except ValueError as error:
            raise ValueError(f"{error} ({_place(module, node)})") from error
    wires.append(Wire(what, tuple(values[value] for value in inputs)))
    values[node] = len(wires)


def _meaning(module: nn.Module, node: fx.Node) -> tuple[str, nn.Module | None, tuple[fx.Node, ...]]:
    """The wire's name, the torch.nn module that a layer is made of, and the nodes that it reads.

    A function has no name here.
    """
    from minicnn.torch.parts import part_of

    if node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
        return str(node.target), module.get_submodule(str(node.target)), tuple(node.all_input_nodes)
    part = part_of(node, module)
    if part is not None and part.op in ("add", "concat"):
        return {"add": "+", "concat": "cat"}[part.op], None, part.inputs
    if part is not None:
        return "", part.module, part.inputs
    given: Any = dict(zip(("input", "start_dim", "end_dim"), node.args, strict=False)) | node.kwargs
    if node.target in FLATTENS and given.get("start_dim") == 1 and given.get("end_dim", -1) == -1:
        return "", nn.Flatten(), (given["input"],)
    if node.target is F.dropout:
        return "", nn.Dropout(_probability(node)), (node.all_input_nodes[0],)
    return _refuse(module, node, "an operation that minicnn has")


def _changed(module: nn.Module, node: fx.Node) -> fx.Node | None:
    """The node whose memory a node changes in place, or None."""
    from minicnn.torch.parts import changes_in_place

    if not node.all_input_nodes or not changes_in_place(node, module):
        return None
    out = node.kwargs.get("out")
    return _memory(module, out if isinstance(out, fx.Node) else node.all_input_nodes[0])


def _read_later(module: nn.Module, node: fx.Node) -> set[fx.Node]:
    """The memory of all values before a node that are read after it, by another node or as the output."""
    nodes = list(node.graph.nodes)
    here = nodes.index(node)
    later = {*nodes[here + 1 :]}
    return {_memory(module, value) for value in nodes[:here] if later.intersection(value.users)}


def _memory(module: nn.Module, node: fx.Node) -> fx.Node:
    """The node that made the memory in which a node's value is."""
    from minicnn.torch.parts import changes_in_place

    kind = type(module.get_submodule(str(node.target))) if node.op == "call_module" else None
    is_input = kind in SAME_MEMORY or node.target in (*FLATTENS, F.dropout)
    if node.all_input_nodes and (is_input or changes_in_place(node, module)):
        return _memory(module, node.all_input_nodes[0])
    return node


def _probability(node: fx.Node) -> float:
    """torch.fx gives F.dropout's options by name."""
    p: Any = node.kwargs["p"]
    return float(p)


def _refuse(module: nn.Module, node: fx.Node, expected: str) -> NoReturn:
    target = getattr(node.target, "__name__", node.target)
    raise ValueError(f"[from_torch] {_place(module, node)}: expected {expected}, got {target}")


def _place(module: nn.Module, node: fx.Node) -> str:
    """The module, and the line of its code if it is known."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [path for path, _ in stack.values()]
    owner = names[-1] if names and names[-1] else type(module).__name__
    found = re.findall(r'File "(.*)", line (\d+), in \w+\n(?!  File)\s*(.*)', node.stack_trace or "")
    lines = [line for line in found if not line[0].startswith(TORCH)]
    if not lines:
        return str(owner)
    file, number, text = lines[-1]
    return f"{owner}, {file}:{number}, `{text.strip()}`"
