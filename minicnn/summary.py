"""The table that a printed model shows."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

from minicnn.folding import evaluation_names
from minicnn.fusion import fused_names
from minicnn.layers.container import Container
from minicnn.layers.layer import Layer, Shape
from minicnn.layers.parallel import Parallel
from minicnn.layers.residual import Residual
from minicnn.layers.sequential import Sequential


def summary(model: Sequential, input_shape: Shape | None) -> str:
    """Layers, output shapes, parameters and multiply-adds; see `Sequential.summary`."""
    from rich.console import Console
    from rich.table import Table

    columns = {"runs as": fused_names(model), "in evaluation": evaluation_names(model)}
    marks = {heading: names for heading, names in columns.items() if names}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name")
    table.add_column("layer", overflow="fold")
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for heading in marks:
        table.add_column(heading)
    for name, depth, layer, shape_in in _walk(model, 0, input_shape):
        known = shape_in is not None
        leaf = not isinstance(layer, Container)
        row = [
            "  " * depth + name,
            repr(layer) if not isinstance(layer, Sequential) else "Sequential",
            "x".join(map(str, layer.output_shape(shape_in))) if shape_in is not None else "?",
            f"{count_parameters(layer):,}" if leaf else "",
            f"{layer.multiply_adds(shape_in):,}"
            if leaf and shape_in is not None
            else "?" * (leaf and not known),
        ]
        table.add_row(*row, *(names.get(id(layer), "") for names in marks.values()))
    total = f"{count_parameters(model):,} parameters"
    frozen = [layer for _, layer in model.named_layers() if not layer.requires_grad]
    if frozen:
        total += f" ({sum(map(count_parameters, frozen)):,} frozen)"
    if input_shape is not None:
        total += (
            f", {model.multiply_adds(input_shape):,} multiply-adds for {'x'.join(map(str, input_shape))}"
        )
    out = io.StringIO()
    console = Console(file=out, width=140, color_system=None)
    console.print(table)
    console.print(total)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def count_parameters(layer: Layer) -> int:
    """Number of values in the parameters of a layer and its children, bound or not, frozen or not."""
    return sum(
        math.prod(shape) for _, child in layer.named_layers() for shape in child.param_shapes().values()
    )


def _walk(
    layer: Container, depth: int, shape: Shape | None
) -> Iterator[tuple[str, int, Layer, Shape | None]]:
    """Every layer below with its name, depth and input shape."""
    for name, child in layer.named_children():
        if isinstance(layer, Residual) and child is layer.activation:
            inner = layer.body.output_shape(shape) if shape is not None else None
            yield name, depth, child, inner
            continue
        if name:
            yield name, depth, child, shape
        if isinstance(child, Container):
            yield from _walk(child, depth + bool(name), shape)
        if shape is not None and not isinstance(layer, (Parallel, Residual)):
            shape = child.output_shape(shape)
