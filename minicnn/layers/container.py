"""What containers share: an execution plan over their children.

The plan is a list of steps with forward and backward as layers have them.  Unfused, the steps are the
children themselves; `minicnn.fusion.fuse` puts in steps that run several children as one operation.
The tree of layers, and so every name, stays as it was.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from minicnn.backends import Array
from minicnn.layers.layer import Layer


class Step(Protocol):
    """One entry of a plan: a layer, or several that run as one operation."""

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]: ...

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None: ...

    def is_trainable(self) -> bool: ...


def run_forward(plan: list[Step], x: Array, training: bool) -> tuple[Array, list[Any] | None]:
    """Run the steps in order; the list of what each saved, or None in evaluation."""
    if not training:
        for step in plan:
            x, _ = step.forward(x, False)
        return x, None
    saved = []
    for step in plan:
        x, kept = step.forward(x, True)
        saved.append(kept)
    return x, saved


def run_backward(plan: list[Step], dy: Array, saved: list[Any], need_dx: bool) -> Array | None:
    """Run the steps backwards, dropping what each saved as soon as it is used.

    Unless dx is needed, the first step with parameters to train is the last that is run.
    """
    first = 0 if need_dx else next((i for i, step in enumerate(plan) if step.is_trainable()), len(plan))
    for i in range(len(plan) - 1, first - 1, -1):
        dy = plan[i].backward(dy, saved.pop(), need_dx or i > first)
    saved.clear()
    return dy if need_dx else None


def named(layers: tuple[Layer | dict[str, Layer], ...]) -> dict[str, Layer]:
    """The children of a container that is made of one dict of layers, or of layers, named 0, 1, ..."""
    if len(layers) == 1 and isinstance(layers[0], dict):
        return dict(layers[0])
    # what is no layer is for Container to refuse
    return {str(i): cast(Layer, layer) for i, layer in enumerate(layers)}


class Container(Layer):
    """A layer made of named child layers."""

    def __init__(self, children: dict[str, Layer]) -> None:
        super().__init__()
        given: dict[str, Any] = {**children}
        for name, child in given.items():
            if not isinstance(child, Layer):
                kind = type(child).__name__
                raise ValueError(f"[{type(self).__name__}] {name}: expected a Layer, got {kind}")
        self.children = children
        self.unfuse()

    def unfuse(self) -> None:
        """Plan every child as a step of its own."""
        self.fused = False
        self.plan: list[Step] = list(self.children.values())

    def named_children(self) -> list[tuple[str, Layer]]:
        return list(self.children.items())
