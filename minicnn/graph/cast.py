"""The pass that lets a graph compute in bfloat16: it inserts casts, and changes no layer.

What goes in and what comes out stay float32.  Between them, what an operation gives that takes bfloat16 is
bfloat16.  All other operations get float32 and give float32: softmax, and a user's own layer.
"""

from __future__ import annotations

from minicnn.graph.graph import INPUT, Graph, Node
from minicnn.graph.operations import Cast

IN_BFLOAT16 = frozenset({
    "conv2d", "conv2d_relu", "conv2d_max_pool2d", "conv2d_relu_max_pool2d", "dense", "dense_relu",
    "batch_norm2d", "batch_norm2d_relu", "batch_norm2d_add_relu", "batch_norm2d_relu_max_pool2d",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "relu", "relu6", "dropout", "add", "add_relu",
    "concat", "flatten",
})  # fmt: skip
"""The operations of nodes that take bfloat16 and give it."""


def insert_casts(graph: Graph) -> Graph:
    """The graph whose operations compute in bfloat16 where they can, between float32 input and output."""
    nodes: list[Node] = []
    dtypes = {INPUT: "float32"}
    casts: dict[tuple[int, str], int] = {}  # (value, dtype) -> the value that is its cast
    free = max((node.output for node in graph), default=INPUT) + 1

    def in_dtype(value: int, dtype: str) -> int:
        """The value itself where it has the dtype, else its cast, which is added the first time."""
        if dtypes[value] == dtype:
            return value
        if (value, dtype) not in casts:
            made = casts[value, dtype] = free + len(casts)
            nodes.append(Node(Cast(dtype, dtypes[value]), (value,), made, (), (True,)))
        return casts[value, dtype]

    for node in graph:
        dtype = "bfloat16" if node.op in IN_BFLOAT16 else "float32"
        inputs = tuple(in_dtype(value, dtype) for value in node.inputs)
        nodes.append(node._replace(inputs=inputs))
        dtypes[node.output] = dtype
    output = in_dtype(graph.output, "float32")
    return Graph(tuple(nodes), output)


def input_dtype(graph: Graph, dtype: str) -> str:
    """The dtype in which the graph's input may come: bfloat16 if all that reads it would cast it to that.

    Else it is ``dtype``, that of the model's parameters.  The bits of what comes out are the same for both.
    """
    readers = [node.operation for node in graph if INPUT in node.inputs]
    rounds = bool(readers) and all(isinstance(o, Cast) and o.dtype == "bfloat16" for o in readers)
    return "bfloat16" if rounds and graph.output != INPUT else dtype
