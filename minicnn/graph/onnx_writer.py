"""Collects the nodes and constants of an ONNX graph, and keeps all names apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minicnn import shapes
from minicnn.graph.operations import Shape

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

    from minicnn.layers.layer import Layer


class Step(NamedTuple):
    """What a translation of a node needs to know of it; shapes are those of one sample."""

    name: str
    layer: Layer | None
    attributes: dict[str, Any]
    inputs: list[str]
    shapes: list[Shape]
    output_shape: Shape


class Writer:
    """Nodes in the order in which they run, and constants by name.  A node gives the value of its name."""

    def __init__(self, *reserved: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._taken = set(reserved)
        self._parameters: dict[tuple[int, str], str] = {}

    def unique(self, wanted: str) -> str:
        """The name, with a number if it is taken."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def node(
        self, op: str, inputs: list[str], name: str, *, output: str = "", note: str = "", **attributes: Any
    ) -> str:
        """Add a node; returns the name of its value, which is the node's unless ``output`` is given."""
        from onnx import helper

        name = self.unique(name)
        output = output or name
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=name, doc_string=note or None, **attributes)
        )
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        from onnx import numpy_helper

        name = self.unique(name)
        self.constants[name] = numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def parameter(self, step: Step, kind: str) -> str:
        """The constant of a layer's parameter or buffer, named as in ``state_dict``; "" if it has none.

        A layer that runs at several places has it once.
        """
        layer = step.layer
        assert layer is not None
        array = layer.params.get(kind, layer.buffers.get(kind))
        if array is None:
            return ""
        key = (id(layer), kind)
        if key not in self._parameters:
            values = layer.backend.to_numpy(array)
            self._parameters[key] = self.constant(f"{step.name}.{kind}", values)
        return self._parameters[key]


def sides(padding: shapes.Padding) -> list[int]:
    """Padding as ONNX has it: top, left, bottom, right."""
    return [*padding, *padding] if len(padding) == 2 else [*padding]
