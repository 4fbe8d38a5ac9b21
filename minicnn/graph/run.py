"""The executor: runs a graph forward and backward on any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn import shapes
from minicnn.backends import Array, Backend
from minicnn.graph.graph import INPUT, Graph
from minicnn.graph.operations import Gradients, Needs, Operation

if TYPE_CHECKING:
    from minicnn.layers.layer import Layer


def forward(graph: Graph, backend: Backend, x: Array, training: bool) -> tuple[Array, list[Any] | None]:
    """Run the nodes in order; (y, what each node saved for the backward pass), None in evaluation."""
    with backend.multiplying(graph.precision):
        return _forward(graph, backend, x, training)


def _forward(graph: Graph, backend: Backend, x: Array, training: bool) -> tuple[Array, list[Any] | None]:
    values = {INPUT: x}
    saved: list[Any] = []
    for node, unread in zip(graph.nodes, graph.last_reads, strict=True):
        if len(node.inputs) == 1:  # nearly every node, and building a list takes longer
            y, kept = node.operation.forward(backend, (values[node.inputs[0]],), training)
        else:
            y, kept = node.operation.forward(backend, [values[value] for value in node.inputs], training)
        if training:
            saved.append(kept)
        for value in unread:
            del values[value]
        values[node.output] = y
    return values[graph.output], saved if training else None


def backward(
    graph: Graph, backend: Backend, dy: Array, saved: list[Any] | None,
    done: Callable[[Layer], object] | None = None,
) -> Array | None:  # fmt: skip
    """Run the nodes backward: sets the gradients of layers, returns the input's, None if it is not needed.

    What a node saved is dropped as soon as it is used, so that ``saved`` is empty afterwards.  Gradients
    that meet are added in the order of the nodes that they come from, and so are those of a layer that
    has several nodes.  ``done`` is called with each layer whose gradients are complete before the end.
    """
    if saved is None or len(saved) != len(graph):
        expected = f"{len(graph)} entries, of a forward pass in training that has had no backward pass yet"
        shapes.fail("backward", "saved", expected, f"{len(saved)} entries" if saved is not None else "None")
    with backend.multiplying(graph.precision):
        return _backward(graph, backend, dy, saved, done)


def _backward(
    graph: Graph, backend: Backend, dy: Array, saved: list[Any], done: Callable[[Layer], object] | None
) -> Array | None:
    gradients: dict[int, list[Array]] = {graph.output: [dy]}
    seen: set[Layer] = set()
    for node in reversed(graph.nodes):
        operation, inputs, output, _, needs, in_backward = node
        kept = saved.pop()
        parts = gradients.pop(output, None)
        if parts is None or not in_backward:
            continue
        upstream = parts[0] if len(parts) == 1 else _sum(backend, parts)
        del parts
        if operation.owner in graph.repeated:
            results = _add_to_owner(operation, backend, upstream, kept, needs, seen)
        else:
            results = operation.backward(backend, upstream, kept, needs)
            if done is not None and operation.owner is not None:
                done(operation.owner)
        del kept, upstream
        for value, needed, result in zip(inputs, needs, results, strict=True):
            if not needed:
                continue
            if value in gradients:
                gradients[value].insert(0, result)
            else:
                gradients[value] = [result]
    left = gradients.get(INPUT)
    return _sum(backend, left) if left else None


def _add_to_owner(
    operation: Operation, backend: Backend, dy: Array, kept: Any, needs: Needs, seen: set[Layer]
) -> Gradients:
    """Run a node whose owner has others too: its gradients in this pass are added up."""
    owner = operation.owner
    assert owner is not None
    earlier = owner.grads if owner in seen else {}
    seen.add(owner)
    results = operation.backward(backend, dy, kept, needs)
    for name, gradient in earlier.items():
        owner.grads[name] = backend.add_forward(owner.grads[name], gradient)
    return results


def _sum(backend: Backend, parts: list[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = backend.add_forward(total, part)
    return total


def predict(graph: Graph, backend: Backend, x: np.ndarray, *, batch_size: int, dtype: str) -> np.ndarray:
    """The outputs (N,K) of images x (N,C,H,W) in evaluation, ``batch_size`` of them at a time."""
    outputs = []
    for start in range(0, max(len(x), 1), batch_size):
        batch = x[start : start + batch_size].astype(dtype, copy=False)
        outputs.append(backend.to_numpy(forward(graph, backend, backend.asarray(batch), False)[0]))
    return outputs[0].copy() if len(outputs) == 1 else np.concatenate(outputs)
