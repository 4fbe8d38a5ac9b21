"""The pass that marks where the backward pass has nothing to do, because layers are frozen."""

from __future__ import annotations

from minicnn.graph.graph import INPUT, Graph, Node


def prune(graph: Graph, *, need_dx: bool) -> Graph:
    """The graph whose nodes run backward only where a gradient is needed.

    A value's gradient is needed where a layer that gave it, or that gave what it was made of, is to be
    trained; the input's if ``need_dx``.
    """
    needed = {INPUT: need_dx}
    nodes: list[Node] = []
    for node in graph:
        needs = tuple(needed[value] for value in node.inputs)
        trainable = any(layer.is_trainable() for layer in node.operation.layers)
        needed[node.output] = trainable or any(needs)
        nodes.append(node._replace(needs=needs, in_backward=needed[node.output]))
    return Graph(tuple(nodes), graph.output, graph.values, graph.precision)
