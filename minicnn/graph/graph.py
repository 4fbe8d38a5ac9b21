"""The graph of a model: a flat list of nodes in the order in which they run.

A model's tree of layers says names and parameters.  The graph says what runs: every node applies one
operation to values that the input or earlier nodes gave.  Values are numbered; the input is value 0.
Passes (`fuse`, `fold_batch_norm`, `insert_casts`, `prune`) make another graph of a graph; nothing changes
the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from minicnn.graph.operations import LayerOperation, Operation, Shape

if TYPE_CHECKING:
    from minicnn.layers.layer import Layer

INPUT = 0
"""The number of the value that goes in."""


class Node(NamedTuple):
    """One operation: the numbers of the values that it reads, and of the one that it makes.

    ``names`` are the full names of the layers that it runs.  ``needs`` says of each input whether the
    backward pass has to give its gradient, and ``in_backward`` whether the node runs backward at all.
    """

    operation: Operation
    inputs: tuple[int, ...]
    output: int
    names: tuple[str, ...] = ()
    needs: tuple[bool, ...] = ()
    in_backward: bool = True

    @property
    def op(self) -> str:
        """The operation's name in the contract; of a user's own layer, the name of its class."""
        return self.operation.op

    @property
    def attributes(self) -> dict[str, Any]:
        """The operation's attributes, as the layers have them now."""
        return self.operation.attributes()

    @property
    def owner(self) -> Layer | None:
        """The layer that owns the parameters, if there are any."""
        return self.operation.owner


class Graph:
    """Nodes in the order in which they run, and the number of the value that comes out."""

    def __init__(
        self, nodes: tuple[Node, ...], output: int, values: dict[str, int] | None = None,
        precision: str = "float32",
    ) -> None:  # fmt: skip
        self.nodes, self.output = nodes, output
        self.precision = precision
        """How float32 values are multiplied: "float32" or "tf32"."""
        self.values = values or {}
        """Full name of a layer or container -> the value it gives; only in the graph that `build` makes."""

    @cached_property
    def ops(self) -> frozenset[str]:
        """The operations that occur."""
        return frozenset(node.op for node in self.nodes)

    @cached_property
    def last_reads(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the values that nothing reads after it."""
        last = {value: number for number, node in enumerate(self.nodes) for value in node.inputs}
        last[self.output] = len(self.nodes)
        return tuple(
            tuple(value for value in dict.fromkeys(node.inputs) if last[value] == number)
            for number, node in enumerate(self.nodes)
        )

    @cached_property
    def repeated(self) -> frozenset[Layer]:
        """The layers that own several nodes."""
        owners = [node.owner for node in self.nodes if node.owner is not None]
        return frozenset(owner for owner in owners if owners.count(owner) > 1)

    def next_nodes(self) -> dict[int, Node]:
        """Value -> the only node that reads it, if there is one and the value does not come out."""
        found: dict[int, Node] = {}
        several = {self.output}
        for node in self.nodes:
            for value in node.inputs:
                if value in found:
                    several.add(value)
                found[value] = node
        return {value: node for value, node in found.items() if value not in several}

    def shapes(self, input_shape: Shape) -> dict[int, Shape]:
        """Value -> its shape for one sample, (C,H,W) or (features,).

        Raises: ValueError naming the layer that an input of this shape does not fit
        """
        found = {INPUT: input_shape}
        for node in self.nodes:
            found[node.output] = node.operation.output_shape([found[value] for value in node.inputs])
        return found

    def multiply_adds(self, input_shape: Shape) -> int:
        """Multiply-adds of a forward pass of one sample."""
        shapes = self.shapes(input_shape)
        return sum(
            node.operation.multiply_adds([shapes[value] for value in node.inputs]) for node in self.nodes
        )

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __str__(self) -> str:
        """One line a node: what it gives, the operation and what it reads, the layers that it runs."""
        rows = []
        for node in self.nodes:
            reads = ", ".join(f"v{value}" for value in node.inputs)
            call = f"v{node.output} = {node.op}({reads})"
            rows.append((call, ", ".join(node.names), node.operation.label()))
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = [f"{call:{widths[0]}}  {names:{widths[1]}}  {label}" for call, names, label in rows]
        return "\n".join([*map(str.rstrip, lines), f"return v{self.output}"])


class Builder:
    """Collects the nodes of a model.  Containers add their children's; see `Container.add_to`."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.values: dict[str, int] = {}

    def layer(self, layer: Layer, value: int, name: str) -> int:
        """Add a layer that reads ``value``, a container with all below it; the number of what it gives.

        A layer with a ``forward`` of its own is one node.
        """
        if expands(layer):
            output = layer.add_to(self, value, name)
        else:
            output = self.node(LayerOperation(layer), (value,), (name,))
        self.values[name] = output
        return output

    def node(self, operation: Operation, inputs: tuple[int, ...], names: tuple[str, ...] = ()) -> int:
        """Add one operation; the number of the value that it gives."""
        node = Node(operation, inputs, len(self.nodes) + 1, names, (True,) * len(inputs))
        self.nodes.append(node)
        return node.output


def build(layer: Layer) -> Graph:
    """The graph of a layer or container with one node for each layer in it."""
    builder = Builder()
    output = builder.layer(layer, INPUT, "")
    return Graph(tuple(builder.nodes), output, builder.values)


def build_children(container: Layer) -> Graph:
    """The graph of what is in a container, even where the container has a ``forward`` of its own."""
    builder = Builder()
    output = container.add_to(builder, INPUT, "")
    return Graph(tuple(builder.nodes), output, builder.values)


def expands(layer: Layer) -> bool:
    """Whether the layer adds its children's nodes.  One with a ``forward`` of its own does not."""
    for cls in type(layer).__mro__:
        if "add_to" in vars(cls):
            return True
        if "forward" in vars(cls):
            return False
    return False
