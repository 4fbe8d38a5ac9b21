"""A model as an ONNX model, made of the model's own graph.  It needs the package onnx, and no torch.

Nodes bear the names of the layers, and constants the names of the parameters in ``state_dict``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn import __version__, shapes
from minicnn.contract import INPUT as IMAGES
from minicnn.contract import LOGITS, PROBABILITIES, Contract
from minicnn.graph.fold_batch_norm import fold_batch_norm
from minicnn.graph.graph import INPUT, Graph, Node, build
from minicnn.graph.onnx_operations import TRANSLATIONS
from minicnn.graph.onnx_resize import add_resize
from minicnn.graph.onnx_writer import Step, Writer
from minicnn.graph.operations import LayerOperation, Shape

if TYPE_CHECKING:
    from onnx import ModelProto

    from minicnn.layers.model import Model

OPSET, IR_VERSION = 18, 8
"""The version of ONNX's operations, and of its file format: those of onnx 1.13, of December 2022."""

AROUND = (f"{IMAGES}.", "resize.", f"{LOGITS}.", "softmax")
"""The names of the nodes around the layers begin so."""


def to_onnx(
    model: Model, input_shape: Shape | None = None, *, contract: Contract | None = None, fold: bool = True,
    any_size: bool = False, name: str = "minicnn",
) -> ModelProto:  # fmt: skip
    """The model in evaluation, in float32, as an ONNX model of opset 18 for any number of images at once.

    With a contract its input is ``images``, uint8 (N,C,H,W), and its outputs are ``probabilities`` and
    ``logits``, float32 (N,K): normalisation, temperature and softmax are nodes of the model, class names
    and contract are in its metadata.  Without one, ``images`` is float32 (N,C,H,W), normalised already,
    and the output is ``logits``, whatever its shape.

    Args:   input_shape (C,H,W): by default the contract's, or else the one that the model was made with
            fold batch norms into the convolutions before them
            any_size takes images of any height and width, which the model brings to its size
            name the graph's
    Raises: ValueError naming a layer of the user's own, or a shape that does not fit; ModuleNotFoundError
            without the package onnx
    """
    if input_shape is None:
        input_shape = contract.image_shape if contract else model.input_shape
    if input_shape is None or len(input_shape) != 3:
        shapes.fail("export", "input_shape", "(C, H, W)", input_shape)
    if any_size and contract is None:
        shapes.fail("export", "any_size", "a contract, which says how images get their size", True)
    model.bound()
    graph = build(model)
    _refuse_own_layers(graph)
    writer = Writer(IMAGES, PROBABILITIES, LOGITS)
    x = IMAGES if contract is None else _add_preparation(writer, contract, any_size=any_size)
    values = _add_nodes(writer, fold_batch_norm(graph) if fold else graph, x, input_shape)
    _rename(writer, values[graph.output])
    output_shape = graph.shapes(input_shape)[graph.output]
    if contract is not None:
        _add_softmax(writer, contract, output_shape)
    return _finished(writer, contract, input_shape, output_shape, any_size=any_size, name=name)


def describe(proto: ModelProto, **entries: Any) -> None:
    """Add entries, each as JSON, to the model's metadata, beside those that are there."""
    from onnx import helper

    there = {entry.key: entry.value for entry in proto.metadata_props}
    helper.set_model_props(proto, there | {key: json.dumps(value) for key, value in entries.items()})


def _refuse_own_layers(graph: Graph) -> None:
    for node in graph:
        own = isinstance(node.operation, LayerOperation) and node.operation.layer.op != node.op
        if own or node.op not in TRANSLATIONS:
            shapes.fail("export", f"layer {', '.join(node.names)}", "one of minicnn's", node.op)


def _add_preparation(writer: Writer, contract: Contract, *, any_size: bool) -> str:
    """The nodes that make the first layer's input of bytes, as `minicnn.ops.make_batch.normalized` does."""
    x = writer.node("Cast", [IMAGES], f"{IMAGES}.float32", to=1)
    if any_size:
        x = add_resize(writer, x, contract.image_shape[1:], contract.resize)
    mean, std = np.array(contract.mean, np.float64), np.array(contract.std, np.float64)
    scale = writer.constant(f"{IMAGES}.scale", (1 / (255 * std))[:, None, None])
    shift = writer.constant(f"{IMAGES}.shift", (-mean / std)[:, None, None])
    scaled = writer.node("Mul", [x, scale], f"{IMAGES}.scaled")
    return writer.node("Add", [scaled, shift], f"{IMAGES}.normalised")


def _add_nodes(writer: Writer, graph: Graph, x: str, input_shape: Shape) -> dict[int, str]:
    """Add the graph's nodes, which read x; returns the name of each value."""
    values, found = {INPUT: x}, graph.shapes(input_shape)
    names: dict[int, str] = {}
    for node in graph:
        name = names[node.output] = _name_of(node, names)
        step = Step(
            name, node.owner or next(iter(node.operation.layers), None), node.attributes,
            [values[value] for value in node.inputs], [found[value] for value in node.inputs],
            found[node.output],
        )  # fmt: skip
        before = len(writer.nodes)
        values[node.output] = TRANSLATIONS[node.op](writer, step)
        if len(node.names) > 1 and len(writer.nodes) > before:
            writer.nodes[-1].doc_string = " and ".join(node.names)
    return values


def _name_of(node: Node, names: dict[int, str]) -> str:
    """The layer's name; where branches meet, the name of what holds all of them, and the operation."""
    if node.names:
        return node.names[0]
    parents = [names[value].split(".")[:-1] for value in node.inputs if value in names]
    if node.op == "add":  # the other one may come from anywhere before
        parents = parents[:1]
    common = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join([*common, node.op])


def _rename(writer: Writer, value: str) -> None:
    """Give the value that comes out its name."""
    if not any(value in node.output for node in writer.nodes):  # a model that does nothing
        writer.node("Identity", [value], LOGITS, output=LOGITS)
        return
    for node in writer.nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == value:
                    names[place] = LOGITS


def _add_softmax(writer: Writer, contract: Contract, output_shape: Shape) -> None:
    classes = len(contract.class_names)
    if output_shape != (classes,):
        shapes.fail("export", "model", f"an output of {classes} numbers, one a class", output_shape)
    x = LOGITS
    if contract.temperature is not None:
        temperature = writer.constant("temperature", contract.temperature)
        x = writer.node("Div", [x, temperature], f"{LOGITS}.tempered")
    writer.node("Softmax", [x], "softmax", output=PROBABILITIES, axis=1)


def _finished(
    writer: Writer, contract: Contract | None, input_shape: Shape, output_shape: Shape, *, any_size: bool,
    name: str,
) -> ModelProto:  # fmt: skip
    from onnx import TensorProto, checker, helper

    def value(name: str, shape: list[str | int], kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    size: list[str | int] = ["height", "width"] if any_size else list(input_shape[1:])
    kind = TensorProto.FLOAT if contract is None else TensorProto.UINT8
    outputs = [value(LOGITS, list(output_shape))]
    if contract is not None:
        outputs = [value(PROBABILITIES, list(output_shape)), *outputs]
    graph = helper.make_graph(
        writer.nodes, name, [value(IMAGES, [input_shape[0], *size], kind)], outputs,
        list(writer.constants.values()),
    )  # fmt: skip
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name="minicnn", producer_version=__version__,
    )  # fmt: skip
    if contract is not None:
        describe(proto, class_names=contract.class_names, contract=contract.described(any_size=any_size))
    checker.check_model(proto, full_check=True)
    return proto
