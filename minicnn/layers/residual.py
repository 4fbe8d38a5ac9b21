"""Residual connection: y = activation(body(x) + shortcut(x))."""

from __future__ import annotations

from minicnn import shapes
from minicnn.graph.graph import Builder
from minicnn.graph.operations import Add
from minicnn.layers.container import Container
from minicnn.layers.layer import Layer, join
from minicnn.layers.relu import ReLU
from minicnn.layers.sequential import Sequential


class Residual(Container):
    """``body`` plus ``shortcut`` (the identity if None), then ``activation`` (none if None).

    The body's children keep their own names; the shortcut's bear ``shortcut_name``, which is
    "downsample" in torchvision's ResNets.  Source: He et al. 2015, arXiv:1512.03385.
    """

    def __init__(
        self, body: Sequential, shortcut: Layer | None = None, *, shortcut_name: str = "downsample",
        activation: ReLU | None = None,
    ) -> None:  # fmt: skip
        children: dict[str, Layer] = {"": body}
        self.shortcut_name = shortcut_name
        if shortcut is not None:
            if shortcut_name in body.children:
                shapes.fail("Residual", "shortcut_name", "a name that body has not", shortcut_name)
            if shortcut_name in ("", "relu"):
                shapes.fail("Residual", "shortcut_name", "another name than '' and 'relu'", shortcut_name)
            children[shortcut_name] = shortcut
        if activation is not None:
            children["relu"] = activation
        super().__init__(children)

    @property
    def body(self) -> Layer:
        """What the shortcut is added to."""
        return self.children[""]

    @property
    def shortcut(self) -> Layer | None:
        """The layer of the shortcut; None for the identity."""
        return self.children.get(self.shortcut_name)

    @property
    def activation(self) -> Layer | None:
        """The layer after the addition, if there is one."""
        return self.children.get("relu")

    def add_to(self, graph: Builder, value: int, name: str) -> int:
        residual = value
        if self.shortcut is not None:
            residual = graph.layer(self.shortcut, value, join(name, self.shortcut_name))
        y = graph.node(Add(), (graph.layer(self.body, value, name), residual))
        return y if self.activation is None else graph.layer(self.activation, y, join(name, "relu"))

    def __repr__(self) -> str:
        shortcut = "identity" if self.shortcut is None else "shortcut"
        return f"Residual({shortcut}{', ReLU' if self.activation else ''})"
