"""The table that a printed model shows."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minicnn.graph import Node, build, fold_batch_norm
from minicnn.graph.fuse import runs_as
from minicnn.layers.layer import Layer, Shape, join

if TYPE_CHECKING:
    from minicnn.layers.model import Model


def summary(model: Model, input_shape: Shape | None, *, fuse: bool = True) -> str:
    """Layers, output shapes, parameters and multiply-adds; see `Model.summary`."""
    from rich.console import Console
    from rich.table import Table

    graph = build(model)
    shapes = graph.shapes(input_shape) if input_shape is not None else {}
    nodes = {name: node for node in graph for name in node.names}
    marks = {heading: names for heading, names in _marks(model, fuse).items() if names}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name")
    table.add_column("layer", overflow="fold")
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for heading in marks:
        table.add_column(heading)
    for name, own_name, depth, layer in _rows(model, nodes, "", 0):
        node, output = nodes.get(name), shapes.get(graph.values[name])
        multiply_adds = ""
        if node is not None:
            multiply_adds = f"{layer.multiply_adds(shapes[node.inputs[0]]):,}" if output else "?"
        table.add_row(
            "  " * depth + own_name,
            layer.label(),
            "x".join(map(str, output)) if output else "?",
            f"{count_parameters(layer):,}" if node is not None else "",
            multiply_adds,
            *(names.get(name, "") for names in marks.values()),
        )
    total = f"{count_parameters(model):,} parameters"
    frozen = [layer for _, layer in model.named_layers() if not layer.requires_grad]
    if frozen:
        total += f" ({sum(map(count_parameters, frozen)):,} frozen)"
    if input_shape is not None:
        total += (
            f", {graph.multiply_adds(input_shape):,} multiply-adds for {'x'.join(map(str, input_shape))}"
        )
    out = io.StringIO()
    console = Console(file=out, width=140, color_system=None)
    console.print(table)
    console.print(total)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _rows(
    layer: Layer, nodes: dict[str, Node], prefix: str, depth: int
) -> Iterator[tuple[str, str, int, Layer]]:
    """Every named layer below: its full name, its own name, how deep it lies, and the layer itself."""
    for own_name, child in layer.named_children():
        name = join(prefix, own_name)
        if own_name:
            yield name, own_name, depth, child
        if name not in nodes:
            yield from _rows(child, nodes, name, depth + bool(own_name))


def _marks(model: Model, fuse: bool) -> dict[str, dict[str, str]]:
    """Heading -> full name of a layer -> the operation that runs it, for training and for evaluation."""
    if not fuse:
        return {}
    evaluation = {}
    plain = build(model)
    if fold_batch_norm(plain) is not plain:
        evaluation = runs_as(model.graph(training=False))
    return {"runs as": runs_as(model.graph(training=True)), "in evaluation": evaluation}


def count_parameters(layer: Layer) -> int:
    """Number of values in the parameters of a layer and its children, bound or not, frozen or not."""
    layers = {id(child): child for _, child in layer.named_layers()}
    return sum(math.prod(shape) for child in layers.values() for shape in child.param_shapes().values())
