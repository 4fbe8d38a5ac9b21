"""Branches side by side, joined along the channels."""

from __future__ import annotations

from typing import Any

from minicnn import shapes
from minicnn.backends import Array
from minicnn.layers.container import Container, named
from minicnn.layers.layer import Layer, Shape


class Parallel(Container):
    """Every branch gets x; their outputs (N,C_i,H,W) are concatenated.

    ``Parallel({"branch1": ..., "branch2": ...})`` or ``Parallel(a, b, ...)``, named 0, 1, ...
    With ``flat`` the branches, which are containers, add nothing to the names of their layers.
    Source: Szegedy et al. 2014, arXiv:1409.4842.
    """

    def __init__(self, *branches: Layer | dict[str, Layer], flat: bool = False) -> None:
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

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        results = [branch.forward(x, training) for branch in self.plan]
        ys = [y for y, _ in results]
        kept = [kept for _, kept in results]
        sizes = [int(y.shape[1]) for y in ys]
        return self.backend.concat_forward(ys), (sizes, kept) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        sizes, kept = saved
        dx = None
        for branch, piece in zip(self.plan, self.backend.concat_backward(dy, sizes=sizes), strict=True):
            branch_saved = kept.pop(0)
            if need_dx or branch.is_trainable():
                part = branch.backward(piece, branch_saved, need_dx)
            if need_dx:
                dx = part if dx is None else self.backend.add_forward(dx, part)
        return dx

    def named_children(self) -> list[tuple[str, Layer]]:
        return [("" if self.flat else name, branch) for name, branch in self.children.items()]

    def output_shape(self, input_shape: Shape) -> Shape:
        outputs = [branch.output_shape(input_shape) for branch in self.children.values()]
        channels, sizes = [shape[0] for shape in outputs], {shape[1:] for shape in outputs}
        if len(sizes) != 1:
            shapes.fail("Parallel", "branches", "outputs of one H and W", outputs)
        return (sum(channels), *sizes.pop())

    def multiply_adds(self, input_shape: Shape) -> int:
        return sum(branch.multiply_adds(input_shape) for branch in self.children.values())

    def __repr__(self) -> str:
        return f"Parallel({len(self.children)} branches)"
