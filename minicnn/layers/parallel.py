"""Branches side by side, joined along the channels."""

from __future__ import annotations

from minicnn import shapes
from minicnn.graph.graph import Builder
from minicnn.graph.operations import Concat
from minicnn.layers.container import Container, named
from minicnn.layers.layer import Layer, join


class Parallel(Container):
    """Every branch gets x; their outputs (N,C_i,H,W) are concatenated.

    ``Parallel({"branch1": ..., "branch2": ...})`` or ``Parallel(a, b, ...)``, named 0, 1, ...
    With ``flat`` the branches, which are containers, add nothing to the names of their layers.
    Source: Szegedy et al. 2014, arXiv:1409.4842.
    """

    def __init__(self, *branches: Layer | dict[str, Layer], flat: bool = False) -> None:
        shapes.flags("Parallel", flat=flat)
        children = named(branches)
        if not children:
            shapes.fail("Parallel", "branches", "at least 1 layer", 0)
        super().__init__(children)
        self.flat = flat
        for name, child in children.items():
            if flat and not isinstance(child, Container):
                shapes.fail("Parallel", name, "a container, as flat asks for", type(child).__name__)
        if flat:
            names = [name for child in children.values() for name, _ in child.named_children()]
            if twice := sorted({name for name in names if name and names.count(name) > 1}):
                shapes.fail("Parallel", "branches", "names of layers that differ, as flat asks for", twice)

    def named_children(self) -> list[tuple[str, Layer]]:
        return [("" if self.flat else name, branch) for name, branch in self.children.items()]

    def add_to(self, graph: Builder, value: int, name: str) -> int:
        branches = self.named_children()
        outputs = [graph.layer(branch, value, join(name, own)) for own, branch in branches]
        return graph.node(Concat(), tuple(outputs))

    def __repr__(self) -> str:
        return f"Parallel({len(self.children)} branches)"
