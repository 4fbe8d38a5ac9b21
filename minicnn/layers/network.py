"""Layers that meet in any way: a list says what each reads."""

from __future__ import annotations

from typing import NamedTuple

from minicnn import shapes
from minicnn.graph.graph import Builder
from minicnn.graph.operations import Add, Concat
from minicnn.layers.layer import Layer, join
from minicnn.layers.model import Model


class Wire(NamedTuple):
    """One value of a network: what a layer, an addition or a concatenation makes of earlier values."""

    what: str
    """The name of a child, or "+" for a sum of two values, or "cat" for a concatenation of channels."""
    reads: tuple[int, ...]
    """The numbers of the values that it reads; the input is 0, and the first wire gives 1."""


class Network(Model):
    """Layers by full name, and wires in the order in which they run; the last wire gives the output.

    `minicnn.torch_reference.from_torch` makes one of a module with a forward of its own.
    """

    def __init__(self, children: dict[str, Layer], wires: list[Wire]) -> None:
        super().__init__(children)
        for number, wire in enumerate(wires, 1):
            if wire.what not in children and wire.what not in ("+", "cat"):
                shapes.fail("Network", "wires", "names of children, '+' or 'cat'", repr(wire.what))
            if not wire.reads or not all(0 <= value < number for value in wire.reads):
                shapes.fail("Network", "wires", "numbers of earlier values", wire.reads)
        self.wires = wires

    def add_to(self, graph: Builder, value: int, name: str) -> int:
        values = [value]
        for what, reads in self.wires:
            inputs = tuple(values[number] for number in reads)
            if what == "+":
                values.append(graph.node(Add(), inputs))
            elif what == "cat":
                values.append(graph.node(Concat(), inputs))
            else:
                values.append(graph.layer(self.children[what], inputs[0], join(name, what)))
        return values[-1]

    def __repr__(self) -> str:
        return f"Network({len(self.children)} layers)"
