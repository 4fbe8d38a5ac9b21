"""Each operation of the contract as nodes of ONNX.

Shapes are known here, so what ONNX and its engines do differently is written out: windows that hang over
the edge (``ceil_mode``) are padding, which is counted or not as in the contract, and adaptive pooling is a
fixed pool or two matrix products.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn import shapes
from minicnn.graph.onnx_writer import Step, Writer, sides

Translation = Callable[[Writer, Step], str]


def _conv2d(writer: Writer, step: Step) -> str:
    conv = step.attributes["conv"]
    weight, bias = writer.parameter(step, "weight"), writer.parameter(step, "bias")
    return writer.node(
        "Conv", [step.inputs[0], weight, *([bias] if bias else [])], step.name,
        strides=conv.stride, pads=sides(conv.padding), dilations=conv.dilation, group=conv.groups,
    )  # fmt: skip


def _dense(writer: Writer, step: Step) -> str:
    weight, bias = writer.parameter(step, "weight"), writer.parameter(step, "bias")
    inputs = [step.inputs[0], weight, *([bias] if bias else [])]
    return writer.node("Gemm", inputs, step.name, transB=1)


def _batch_norm2d(writer: Writer, step: Step) -> str:
    channels = step.shapes[0][0]
    scale = writer.parameter(step, "weight") or writer.constant(f"{step.name}.weight", np.ones(channels))
    shift = writer.parameter(step, "bias") or writer.constant(f"{step.name}.bias", np.zeros(channels))
    mean, variance = writer.parameter(step, "running_mean"), writer.parameter(step, "running_var")
    return writer.node(
        "BatchNormalization", [step.inputs[0], scale, shift, mean, variance], step.name,
        epsilon=step.attributes["eps"],
    )  # fmt: skip


def _max_pool2d(writer: Writer, step: Step) -> str:
    pool, x = step.attributes["pool"], step.inputs[0]
    pads = _reached(step, pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    if any(side >= pool.kernel_size[number % 2] for number, side in enumerate(pads)):
        # engines refuse a pool's own padding as large as its kernel
        x, pads = _padded(writer, step, pads, -np.inf), [0, 0, 0, 0]
    return writer.node(
        "MaxPool", [x], step.name,
        kernel_shape=pool.kernel_size, strides=pool.stride, pads=pads, dilations=pool.dilation,
    )  # fmt: skip


def _avg_pool2d(writer: Writer, step: Step) -> str:
    options, x = step.attributes, step.inputs[0]
    kernel, stride = options["kernel_size"], options["stride"]
    own = sides(options["padding"])
    pads = _reached(step, kernel, stride, options["padding"], (1, 1))
    counted = options["count_include_pad"]
    over = [max(0, pad - side) for pad, side in zip(pads, own, strict=True)]
    if counted and any(over):
        # the padding counts, what the last windows have beyond it does not
        x, pads, counted = _padded(writer, step, own, 0.0), over, False
    return writer.node(
        "AveragePool", [x], step.name,
        kernel_shape=kernel, strides=stride, pads=pads, count_include_pad=int(counted),
    )  # fmt: skip


def _reached(
    step: Step, kernel: shapes.Pair, stride: shapes.Pair, padding: shapes.Padding, dilation: shapes.Pair
) -> list[int]:
    """Padding that reaches as far as the last window, which hangs over the edge with ``ceil_mode``."""
    pads = sides(padding)
    for axis in range(2):
        size, windows = step.shapes[0][1 + axis], step.output_shape[1 + axis]
        end = (windows - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        pads[2 + axis] = max(0, pads[2 + axis], end - size - pads[axis])
    return pads


def _padded(writer: Writer, step: Step, pads: list[int], value: float) -> str:
    top, left, bottom, right = pads
    widths = writer.constant(f"{step.name}.pads", [0, 0, top, left, 0, 0, bottom, right], np.int64)
    filling = writer.constant(f"{step.name}.filling", value)
    return writer.node("Pad", [step.inputs[0], widths, filling], f"{step.name}.padded")


def _adaptive_avg_pool2d(writer: Writer, step: Step) -> str:
    _, height, width = step.shapes[0]
    rows, columns = step.attributes["output_size"]
    if (rows, columns) == (1, 1):
        return writer.node("GlobalAveragePool", step.inputs[:1], step.name)
    if height % rows == 0 and width % columns == 0:
        window = [height // rows, width // columns]
        return writer.node("AveragePool", step.inputs[:1], step.name, kernel_shape=window, strides=window)
    across = writer.constant(f"{step.name}.columns", _means(width, columns).T)
    down = writer.constant(f"{step.name}.rows", _means(height, rows))
    narrow = writer.node("MatMul", [step.inputs[0], across], f"{step.name}.narrow")
    return writer.node("MatMul", [down, narrow], step.name)


def _means(size: int, parts: int) -> np.ndarray:
    """The matrix (parts, size) that takes the mean of each region of adaptive pooling."""
    matrix = np.zeros((parts, size))
    for part in range(parts):
        start, end = part * size // parts, ((part + 1) * size + parts - 1) // parts
        matrix[part, start:end] = 1 / (end - start)
    return matrix


def _relu6(writer: Writer, step: Step) -> str:
    ends = [writer.constant(f"{step.name}.{name}", np.array(end)) for name, end in (("min", 0), ("max", 6))]
    return writer.node("Clip", [step.inputs[0], *ends], step.name)


def _dropout(writer: Writer, step: Step) -> str:  # noqa: ARG001 - as every translation
    """In evaluation dropout is nothing."""
    return step.inputs[0]


TRANSLATIONS: dict[str, Translation] = {
    "conv2d": _conv2d,
    "dense": _dense,
    "batch_norm2d": _batch_norm2d,
    "relu": lambda writer, step: writer.node("Relu", step.inputs, step.name),
    "relu6": _relu6,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "softmax": lambda writer, step: writer.node("Softmax", step.inputs, step.name, axis=1),
    "add": lambda writer, step: writer.node("Add", step.inputs, step.name),
    "concat": lambda writer, step: writer.node("Concat", step.inputs, step.name, axis=1),
    "flatten": lambda writer, step: writer.node("Flatten", step.inputs, step.name, axis=1),
    "dropout": _dropout,
}
"""Operation -> what adds its nodes to a writer, and returns the name of the value that they give."""
