"""What containers share: children with names, and a graph of what they run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any, Self, cast

from minicnn.backends import Array
from minicnn.graph import Graph, insert_casts, prune, run
from minicnn.graph.graph import build_children
from minicnn.layers.layer import Layer, Shape


def named(layers: tuple[Layer | dict[str, Layer], ...]) -> dict[str, Layer]:
    """The children of a container that is made of one dict of layers, or of layers, named 0, 1, ..."""
    if len(layers) == 1 and isinstance(layers[0], dict):
        return dict(layers[0])
    # Container refuses what is not a layer.
    return {str(i): cast(Layer, layer) for i, layer in enumerate(layers)}


class Container(Layer):
    """A layer made of named child layers.

    A container defines `add_to`, which adds its children's nodes to a graph.  Everything else follows from
    the graph: forward, backward, shapes and multiply-adds.
    """

    def __init__(self, children: dict[str, Layer]) -> None:
        super().__init__()
        given: dict[str, Any] = {**children}
        for name, child in given.items():
            if not isinstance(child, Layer):
                kind = type(child).__name__
                raise ValueError(f"[{type(self).__name__}] {name}: expected a Layer, got {kind}")
        self.children = children
        self._graphs = Graphs()
        self._signature: list[object] = []

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: all but the graphs, which are made again."""
        return {**vars(self), "_graphs": Graphs(), "_signature": []}

    def named_children(self) -> list[tuple[str, Layer]]:
        return list(self.children.items())

    def with_children(self, children: dict[str, Layer]) -> Self:
        """A container like this one, unbound, with other children in their places."""
        twin = copy.copy(self)
        twin.children, twin.bound_backend = dict(children), None
        return twin

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        """Every layer as an operation of its own; see `Layer.forward`."""
        return run.forward(self._layer_graph(need_dx=True), self.bound(), x, training)

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        dx = run.backward(self._layer_graph(need_dx=need_dx), self.backend, dy, saved)
        return dx if need_dx else None

    def output_shape(self, input_shape: Shape) -> Shape:
        graph = self._layer_graph(need_dx=True)
        return graph.shapes(input_shape)[graph.output]

    def multiply_adds(self, input_shape: Shape) -> int:
        return self._layer_graph(need_dx=True).multiply_adds(input_shape)

    def _layer_graph(self, *, need_dx: bool) -> Graph:
        def make() -> Graph:
            return prune(self._in_precision(build_children(self)), need_dx=need_dx)

        return self._kept_graphs().get_or_make(("layers", need_dx, self.precision), make)

    def _in_precision(self, graph: Graph) -> Graph:
        if self.precision == "bfloat16":
            return insert_casts(graph)
        return Graph(graph.nodes, graph.output, graph.values, self.precision)

    def _kept_graphs(self) -> Graphs:
        """The graphs that were made since the last time that a layer was replaced or frozen."""
        signature = _signature(self)
        if signature != self._signature:
            self._graphs, self._signature = Graphs(), signature
        return self._graphs


class Graphs(dict[Hashable, Graph]):
    """Graphs by what they are for."""

    def get_or_make(self, key: Hashable, make: Callable[[], Graph]) -> Graph:
        """The graph of this key, which is made the first time."""
        if key not in self:
            self[key] = make()
        return self[key]


def _signature(container: Layer) -> list[object]:
    """What the graph depends on: which layers there are, and which of them are frozen."""
    containers, layers = [container], [container]
    for outer in containers:
        for _, child in outer.named_children():
            layers.append(child)
            if type(child).named_children is not Layer.named_children:
                containers.append(child)
    return [*layers, *[layer.requires_grad for layer in layers]]
