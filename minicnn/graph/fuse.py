"""The pass that lets neighbouring nodes run as one fused operation of the backend.

What a fused operation means is in `minicnn.backends.base`; its kernel, where a backend has one, saves
reading and writing the maps between the nodes.
"""

from __future__ import annotations

from minicnn.graph.graph import Graph, Node
from minicnn.graph.operations import AddReLU, BatchNorm2dAddReLU, Fused, LayerOperation, Operation

PATTERNS: dict[str, tuple[str, ...]] = {
    "conv2d_relu_max_pool2d": ("conv2d", "relu", "max_pool2d"),
    "batch_norm2d_relu_max_pool2d": ("batch_norm2d", "relu", "max_pool2d"),
    "batch_norm2d_add_relu": ("batch_norm2d", "add", "relu"),
    "conv2d_max_pool2d": ("conv2d", "max_pool2d"),
    "conv2d_relu": ("conv2d", "relu"),
    "dense_relu": ("dense", "relu"),
    "batch_norm2d_relu": ("batch_norm2d", "relu"),
    "add_relu": ("add", "relu"),
}
"""Fused operation -> the operations that it replaces, each of which only the next one reads.

The first row that matches is taken, so longer ones come first.  Where the chain enters an addition, it is
the addition's first input."""

_BEGINNINGS = {pattern[0] for pattern in PATTERNS.values()}


def fuse(graph: Graph) -> Graph:
    """The graph in which each chain of nodes that matches a row of `PATTERNS` is one node."""
    following = graph.next_nodes()
    replaced: dict[int, Node] = {}  # the last value of a chain -> the node that gives it
    taken: set[int] = set()  # the values that nodes of chains gave
    for node in graph:
        if node.op not in _BEGINNINGS or node.output in taken:
            continue
        for op, pattern in PATTERNS.items():
            chain = _chain(node, pattern, following)
            if chain is not None:
                taken.update(other.output for other in chain)
                replaced[chain[-1].output] = _fused(op, chain)
                break
    nodes = [
        replaced.get(node.output, node)
        for node in graph
        if node.output in replaced or node.output not in taken
    ]
    return Graph(tuple(nodes), graph.output)


def _chain(node: Node, pattern: tuple[str, ...], following: dict[int, Node]) -> list[Node] | None:
    """The nodes from this one on if their operations are the pattern's."""
    if node.op != pattern[0]:
        return None
    chain = [node]
    for op in pattern[1:]:
        after = following.get(chain[-1].output)
        if after is None or after.op != op or after.inputs[0] != chain[-1].output:
            return None
        chain.append(after)
    return chain


def _fused(op: str, chain: list[Node]) -> Node:
    """The node that does what the chain does, in the place of its last node."""
    first, last = chain[0], chain[-1]
    layers = tuple(layer for node in chain for layer in node.operation.layers)
    others = tuple(value for node in chain[1:] for value in node.inputs[1:])
    operation: Operation
    if op == "add_relu":
        operation = AddReLU(layers[0])
    elif op == "batch_norm2d_add_relu":
        operation = BatchNorm2dAddReLU(op, layers)
    else:
        operation = Fused(op, layers)
    names = tuple(name for node in chain for name in node.names)
    inputs = first.inputs + others
    return Node(operation, inputs, last.output, names, (True,) * len(inputs))


def runs_as(graph: Graph) -> dict[str, str]:
    """Full name of a layer -> the operation that runs it, where that is not the layer's own alone."""
    return {
        name: node.op
        for node in graph
        if not isinstance(node.operation, LayerOperation) or len(node.names) > 1
        for name in node.names
    }
