"""The pass that folds batch norms into the convolutions before them, for evaluation.

In evaluation a batch norm is a fixed scale and shift of each channel, and a convolution can do both by
another weight and bias (`fold_batch_norm2d` in `minicnn.backends.primitives`).  The folded weights are
made of the weights as they are when the pass runs.  So a folded graph serves one prediction, or one pass
over a test set; it does not outlive a change of the weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minicnn.graph.graph import Graph, Node
from minicnn.graph.operations import LayerOperation, Shape

if TYPE_CHECKING:
    from minicnn.layers.layer import Layer

FOLDING = 4
"""How many values of a map are normalised in the time in which one value of a weight is folded.

Measured with the cpp backend, resnet18 and resnet20: 0.36 ns against 0.08 ns, as folding takes new memory.
"""


def fold_batch_norm(graph: Graph, input_shape: Shape | None = None) -> Graph:
    """The graph in which a batch norm right after a convolution is part of the convolution.

    With the shape (N,C,H,W) of all images to come, only where folding costs less time than it saves.
    Where images of this shape do not fit, nothing is folded, and the forward pass says what is wrong.
    """
    if not {"conv2d", "batch_norm2d"} <= graph.ops:
        return graph
    following = graph.next_nodes()
    pairs = [
        (node, following[node.output])
        for node in graph
        if node.op == "conv2d" and node.output in following and following[node.output].op == "batch_norm2d"
    ]
    if pairs and input_shape is not None:
        try:
            shapes = graph.shapes(tuple(input_shape[1:]))
        except ValueError:
            return graph
        pairs = [pair for pair in pairs if _pays(pair[0], input_shape[0], shapes)]
    if not pairs:
        return graph
    folded = {norm.output: _folded_node(conv, norm) for conv, norm in pairs}
    between = {conv.output for conv, _ in pairs}
    nodes = [folded.get(node.output, node) for node in graph if node.output not in between]
    return Graph(tuple(nodes), graph.output)


def _pays(conv: Node, images: int, shapes: dict[int, Shape]) -> bool:
    """Whether normalising the convolution's maps would take longer than folding its weight."""
    weights = math.prod(conv.operation.layers[0].param_shapes()["weight"])
    return images * math.prod(shapes[conv.output]) >= FOLDING * weights


def _folded_node(conv: Node, norm: Node) -> Node:
    layer = _folded_layer(conv.operation.layers[0], norm.operation.layers[0])
    return Node(LayerOperation(layer), conv.inputs, norm.output, conv.names + norm.names, conv.needs)


def _folded_layer(conv: Layer, norm: Layer) -> Layer:
    """The convolution that does the batch norm's work too; without arrays if the model has none yet."""
    if not conv.params:
        return conv.with_params({})
    arrays, options = norm.arguments(training=False)
    weight, bias = conv.backend.fold_batch_norm2d(
        conv.params["weight"], conv.params.get("bias"), *arrays, eps=options["eps"]
    )
    return conv.with_params({"weight": weight, "bias": bias})
