"""The code that an accelerated module runs: its own forward, with steps in place of operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from minicnn.torch.parts import Part, changes_in_place, part_of
from minicnn.torch.steps import EVALUATION, TRAINING, Ops, Step
from minicnn.torch.tracing import trace


class Plan:
    """A traced forward: ``run(module, *values)``, and the steps in it by the names of their modules."""

    def __init__(self, module: nn.Module, training: bool) -> None:
        graph = trace(module, training)
        self.steps: dict[str, Step] = {}
        self.arguments = sum(node.op == "placeholder" for node in graph.nodes)
        patterns = TRAINING if training else EVALUATION
        parts = {node: part for node in graph.nodes if (part := part_of(node, module)) is not None}
        chains: list[list[fx.Node]] = []
        taken: set[fx.Node] = set()
        for node in graph.nodes:
            if node in parts and node not in taken and (chain := _chain(module, node, parts, patterns)):
                taken.update(chain)
                chains.append(chain)
        written: dict[fx.Node, fx.Node] = {}
        for chain in chains:
            written[chain[-1]] = self._put(graph, chain, parts, patterns, written)
        self.run = _compiled(graph, {step.__name__: step for step in self.steps.values()})

    def _put(
        self, graph: fx.Graph, chain: list[fx.Node], parts: dict[fx.Node, Part], patterns: dict[Ops, str],
        written: dict[fx.Node, fx.Node],
    ) -> fx.Node:  # fmt: skip
        """Write a step in the place of the last node of a chain; ``written`` are those before it."""
        found = [parts[node] for node in chain]
        ops = tuple(part.op for part in found)
        step = Step(
            ops, patterns[ops], [part.module for part in found], [part.target is not None for part in found]
        )
        values = [*found[0].inputs]
        for part, before in zip(found[1:], chain, strict=False):
            values += [value for value in part.inputs if value is not before]
        names = [part.target for part in found if part.target is not None]
        # Two calls of one module are two steps.
        name = ", ".join(part.target or f"{part.op}()" for part in found)
        while name in self.steps:
            name += "'"
        step.__name__, step.__module__ = f"step_{len(self.steps)}", __name__
        self.steps[name] = step
        last = chain[-1]
        with graph.inserting_before(last):
            modules = [graph.get_attr(target) for target in names]
            node = graph.call_function(step, (tuple(written.get(v, v) for v in values), *modules))
        last.replace_all_uses_with(node)
        for old in reversed(chain):
            graph.erase_node(old)
        return node


def _chain(
    module: nn.Module, node: fx.Node, parts: dict[fx.Node, Part], patterns: dict[Ops, str]
) -> list[fx.Node]:
    """The longest chain of nodes from this one on, each read by the next one alone, that is a pattern."""
    chain, best = [node], []
    while not _is_seen_to_change(chain[-1], parts):
        ops = tuple(parts[n].op for n in chain)
        if ops in patterns and not _changes_between(module, chain, parts):
            best = [*chain]
        if not any(pattern[: len(ops)] == ops for pattern in patterns):
            break
        last = chain[-1]
        after = next(iter(last.users)) if len(last.users) == 1 else None
        if after is None or after not in parts or parts[after].inputs.count(last) != 1:
            break
        chain.append(after)
    return best


def _is_seen_to_change(node: fx.Node, parts: dict[fx.Node, Part]) -> bool:
    """Whether a part changes a value in place that others can read; a step changes none.

    Others can if it is not the result of a part, which is new, or if more than one node reads it.
    """
    while parts[node].in_place:
        node = parts[node].inputs[0]
        if node not in parts or len(node.users) > 1:
            return True
    return False


def _changes_between(module: nn.Module, chain: list[fx.Node], parts: dict[fx.Node, Part]) -> bool:
    """Whether what a chain reads may change before its end, where the step stands.

    It may if others read it in between, or if something that may be the same memory is changed there.
    """
    nodes = list(chain[0].graph.nodes)
    between = {*nodes[nodes.index(chain[0]) : nodes.index(chain[-1])]} - {*chain}
    read = {user for node in chain for value in node.all_input_nodes for user in value.users}
    return bool(between & read) or any(
        _is_seen_to_change(node, parts) if node in parts else changes_in_place(node, module)
        for node in between
    )


def _compiled(graph: fx.Graph, steps: dict[str, Step]) -> Callable[..., Any]:
    """The graph's code as a function of the module and the values."""
    graph.lint()
    code = graph.python_code("self")
    names = {**code.globals, **steps}
    exec(compile(code.src, "<accelerated forward>", "exec"), names)
    run: Callable[..., Any] = names["forward"]
    return run
