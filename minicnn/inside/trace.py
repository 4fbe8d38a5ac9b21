"""A forward pass of which every value is kept, and the gradients that come back to each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minicnn import shapes
from minicnn.backends import Array
from minicnn.graph import Graph, Node, build
from minicnn.graph.graph import INPUT
from minicnn.layers import Conv2d, Layer
from minicnn.layers.layer import RandomLayer
from minicnn.layers.model import Model

NAMES_TOLD = 20
"""Layers that an error names."""


class Trace:
    """What a model computes of images x (N,C,H,W), normalised as in training.

    Each layer is an operation of its own, in float32 (or the model's float64), in evaluation mode.
    """

    def __init__(self, model: Model, x: np.ndarray) -> None:
        self.model, self.graph = model, build(model)
        self._backend = model.bound()
        self._values: dict[int, Array] = {INPUT: self._backend.asarray(np.asarray(x, model.dtype))}
        self._saved: list[Any] = []
        with _evaluating(model):
            for node in self.graph:
                inputs = [self._values[value] for value in node.inputs]
                y, saved = node.operation.forward(self._backend, inputs, _saves(node))
                self._values[node.output] = y
                self._saved.append(saved)

    @property
    def logits(self) -> np.ndarray:
        """What comes out, (N,K)."""
        return self.value(self.graph.output)

    def value(self, number: int) -> np.ndarray:
        """The value of this number in the graph, (N,...)."""
        return np.asarray(self._backend.to_numpy(self._values[number]))

    def gradients(self, dy: np.ndarray) -> dict[int, np.ndarray]:
        """Value -> the gradient to it, of the same shape, for the gradient ``dy`` (N,K) to the logits.

        Torch: ``torch.autograd.grad(logits, values, dy)`` in ``model.eval()``
        """
        backend = self._backend
        found: dict[int, Array] = {self.graph.output: backend.asarray(np.asarray(dy, self.model.dtype))}
        with _evaluating(self.model):
            for node, saved in zip(reversed(self.graph.nodes), reversed(self._saved), strict=True):
                if node.output not in found:
                    continue  # nothing that comes out depends on it
                needs = (True,) * len(node.inputs)
                parts = node.operation.backward(backend, found[node.output], saved, needs)
                for value, part in zip(node.inputs, parts, strict=True):
                    found[value] = backend.add_forward(part, found[value]) if value in found else part
        return {value: np.asarray(backend.to_numpy(gradient)) for value, gradient in found.items()}

    def named_values(self) -> dict[str, int]:
        """The full names of layers, in the order in which they run, with the values that they give.

        A sum or a concatenation of branches bears the name of its container; one that adds nothing to
        names is told by its kind and place, as in ``add 3``.
        """
        of_container = {number: name for name, number in self.graph.values.items() if name}
        found: dict[str, int] = {}
        for place, node in enumerate(self.graph, 1):
            name = node.names[0] if node.names else of_container.get(node.output, f"{node.op} {place}")
            found[name if name not in found else f"{name}, again at {place}"] = node.output
        return found


def last_maps(graph: Graph, shapes_of: dict[int, tuple[int, ...]]) -> int:
    """The value that ends the convolutional part: the last maps that have the last convolution's size.

    That is after the activation that follows it, or after the sum or concatenation of branches.

    Raises: ValueError if there is no convolution
    """
    sizes = [shapes_of[node.output][1:] for node in graph if isinstance(node.owner, Conv2d)]
    if not sizes:
        raise ValueError("[grad_cam] model: expected a network with a convolution, got none")
    return [
        n.output for n in graph if len(shapes_of[n.output]) == 3 and shapes_of[n.output][1:] == sizes[-1]
    ][-1]


def maps_named(trace: Trace, name: str) -> int:
    """The value (N,C,H,W) of the layer or container of this full name.

    Raises: ValueError naming the layers that have maps
    """
    known = {name: number for name, number in trace.graph.values.items() if name} | trace.named_values()
    with_maps = [one for one, number in known.items() if trace.value(number).ndim == 4]
    if name not in with_maps:
        told = ", ".join(with_maps[:NAMES_TOLD]) + (", …" if len(with_maps) > NAMES_TOLD else "")
        shapes.fail("grad_cam", "layer", f"one of {told}", name)
    return known[name]


def _saves(node: Node) -> bool:
    """Whether a node runs as in training and saves what its backward pass needs; dropout must not."""
    return not any(isinstance(layer, RandomLayer) for layer in node.operation.layers)


@contextmanager
def _evaluating(model: Layer) -> Iterator[None]:
    """Freeze all layers for now: batch norms are in evaluation mode then, and gradients stay."""
    layers = [layer for _, layer in model.named_layers()]
    before = [(layer.requires_grad, layer.grads) for layer in layers]
    try:
        for layer in layers:
            layer.requires_grad = False
        yield
    finally:
        for layer, (required, grads) in zip(layers, before, strict=True):
            layer.requires_grad, layer.grads = required, grads
