"""A graph's operations in the compiled CPU module: what an `InferenceSession` runs with the cpp backend.

The weights are copied once, and what the kernels make of them is shared by the plans of all batch sizes
(csrc/cpu/session).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np

from minicnn import shapes
from minicnn.backends import Backend, Pair
from minicnn.backends.base import Conv, Pool
from minicnn.graph.cast import IN_BFLOAT16
from minicnn.graph.graph import INPUT, Graph, Node
from minicnn.graph.operations import Shape

_CONVOLUTIONS = ("conv2d", "conv2d_relu", "conv2d_max_pool2d", "conv2d_relu_max_pool2d")
_DENSE = ("dense", "dense_relu")
_BATCH_NORMS = (
    "batch_norm2d", "batch_norm2d_relu", "batch_norm2d_add_relu", "batch_norm2d_relu_max_pool2d",
)  # fmt: skip
_NO_VALUE = -1
"""In the place of a plan's value, where an operation reads none."""


class Images(Enum):
    """What images (N,C,H,W) are in memory: bytes or floats, and of floats the last axis."""

    BYTES = "bytes"
    CHANNELS_FIRST = "channels first"
    CHANNELS_LAST = "channels last"

    @staticmethod
    def of(x: np.ndarray) -> Images:
        """What an array of floats is; one of neither order counts as channels first."""
        last = x.ndim == 4 and not x.flags.c_contiguous and x.transpose(0, 2, 3, 1).flags.c_contiguous
        return Images.CHANNELS_LAST if last else Images.CHANNELS_FIRST


class CompiledGraph:
    """The operations of a graph for evaluation, with copies of all their weights."""

    def __init__(self, graph: Graph, backend: Backend) -> None:
        self._graph = graph
        self._module: Any = backend._module  # type: ignore[attr-defined]
        self._weights: dict[int, Any] = {
            node.output: self._copied(node, backend)
            for node in graph
            if node.op in (*_CONVOLUTIONS, *_DENSE, *_BATCH_NORMS)
        }
        self._attributes = {node.output: node.attributes for node in graph}
        self._before_sums = _before_sums(graph)

    @staticmethod
    def suits(graph: Graph, backend: Backend, dtype: str) -> bool:
        """Whether all operations are the contract's, in float32 or bfloat16, and the backend is cpp."""
        return backend.name == "cpp" and dtype == "float32" and graph.ops <= _ADD.keys()

    def plan(self, x_shape: Shape, images: Images, table: np.ndarray | None) -> Any:
        """What runs for arrays of this shape (N,C,H,W) or (N,features), of float32.

        Bytes need a ``table`` (C,256), which says what each byte of a channel becomes.
        Raises: ValueError naming the layer that an input of this shape does not fit
        """
        found = self._graph.shapes(x_shape[1:])
        _check_sizes(x_shape[0], [*found.values(), *self._maps_before_pools(found)])
        types = self._module.SessionType
        plan = self._module.SessionPlan(_four(x_shape), types.float32 if table is None else types.uint8)
        values = {INPUT: INPUT}
        if table is not None:
            values[INPUT] = plan.images(INPUT, table.ravel())
        elif images is Images.CHANNELS_FIRST and not _is_flat(x_shape[1:]):
            values[INPUT] = plan.images(INPUT, [])
        waiting = {conv.output for conv in self._before_sums.values()}
        for node in self._graph:
            if node.output in waiting:
                continue
            if node.output in self._before_sums:
                values[node.output] = self._add_conv2d_and_sum(plan, node, values, found)
                continue
            inputs = [values[value] for value in node.inputs]
            values[node.output] = _ADD[node.op](self, plan, node, inputs, found)
        plan.finish(values[self._graph.output])
        return plan

    def _maps_before_pools(self, found: dict[int, Shape]) -> list[Shape]:
        """The shapes of the maps of convolutions whose pool belongs to the same operation."""
        return [
            node.operation.layers[0].output_shape(found[node.inputs[0]])
            for node in self._graph
            if node.op in _CONVOLUTIONS and "pool" in self._attributes[node.output]
        ]

    def output_shape(self, x_shape: Shape) -> Shape:
        """The shape (N, ...) of what comes out of inputs of this shape (N, ...)."""
        return (x_shape[0], *self._graph.shapes(x_shape[1:])[self._graph.output])

    @property
    def bytes(self) -> int:
        """Bytes of the copied weights, and of all that was made of them so far."""
        return sum(getattr(weights, "bytes", 0) for weights in self._weights.values())

    def _copied(self, node: Node, backend: Backend) -> Any:
        owner = node.operation.layers[0]
        arrays, options = owner.arguments(training=False)
        if node.op in _BATCH_NORMS:
            vectors = [[] if a is None else backend.to_numpy(a).tolist() for a in arrays]
            return (*vectors, options["eps"])
        weight, bias = (None if a is None else backend.to_numpy(a) for a in arrays)
        assert weight is not None
        if weight.ndim == 4:
            weight = weight.transpose(0, 2, 3, 1)
        return self._module.SessionFilters(weight, bias)

    # ---- one function a kind of operation; each gives the number of the value in the plan ----------

    def _add_conv2d(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        attributes, filters = self._attributes[node.output], self._weights[node.output]
        conv, y = self._convolution(node, found)
        relu = "relu" in node.op
        if "pool" not in attributes:
            return int(plan.conv2d(inputs[0], _NO_VALUE, filters, conv, relu))
        pool = _pool_numbers(attributes["pool"], y, found[node.output])
        return int(plan.conv2d_pool(inputs[0], filters, conv, pool, relu))

    def _convolution(self, node: Node, found: dict[int, Shape]) -> tuple[list[int], Shape]:
        """A convolution's numbers, and the shape of its map before any pool."""
        layer, x = node.operation.layers[0], found[node.inputs[0]]
        y = layer.output_shape(x)
        conv = self._attributes[node.output]["conv"]
        return _conv_numbers(conv, layer.kernel_size, x, y), y  # type: ignore[attr-defined]

    def _add_conv2d_and_sum(
        self, plan: Any, node: Node, values: dict[int, int], found: dict[int, Shape]
    ) -> int:
        """A sum with the convolution before it; ``values`` are the numbers of the values in the plan."""
        conv = self._before_sums[node.output]
        numbers, _ = self._convolution(conv, found)
        (residual,) = (values[value] for value in node.inputs if value != conv.output)
        filters, relu = self._weights[conv.output], node.op == "add_relu"
        return int(plan.conv2d(values[conv.inputs[0]], residual, filters, numbers, relu))

    def _add_dense(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        outputs = found[node.output][0]
        return int(plan.dense(inputs[0], self._weights[node.output], outputs, node.op == "dense_relu"))

    def _add_batch_norm2d(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        residual = inputs[1] if node.op == "batch_norm2d_add_relu" else _NO_VALUE
        relu = node.op != "batch_norm2d"
        y = plan.batch_norm2d(inputs[0], residual, *self._weights[node.output], relu)
        if node.op != "batch_norm2d_relu_max_pool2d":
            return int(y)
        pool = self._attributes[node.output]["pool"]
        return int(plan.max_pool2d(y, _pool_numbers(pool, found[node.inputs[0]], found[node.output])))

    def _add_max_pool2d(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        pool = self._attributes[node.output]["pool"]
        numbers = _pool_numbers(pool, found[node.inputs[0]], found[node.output])
        return int(plan.max_pool2d(inputs[0], numbers))

    def _add_avg_pool2d(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        a = self._attributes[node.output]
        pool = Pool(a["kernel_size"], a["stride"], a["padding"], (1, 1), a["ceil_mode"])
        numbers = _pool_numbers(pool, found[node.inputs[0]], found[node.output])
        return int(plan.avg_pool2d(inputs[0], numbers, a["count_include_pad"]))

    def _add_adaptive(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        return int(plan.adaptive_avg_pool2d(inputs[0], *found[node.output][1:]))

    def _add_sum(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        return int(plan.add(*inputs, node.op == "add_relu"))

    def _add_concat(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        return int(plan.concat(inputs))

    def _add_flatten(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:
        shape = found[node.inputs[0]]
        is_row = len(shape) == 1 or shape[1] * shape[2] == 1
        return inputs[0] if is_row else int(plan.flatten(inputs[0]))

    def _add_relu(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        return int(plan.relu(inputs[0]))

    def _add_relu6(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        return int(plan.relu6(inputs[0]))

    def _add_softmax(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        return int(plan.softmax(inputs[0]))

    def _add_cast(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        dtype = self._attributes[node.output]["dtype"]
        return int(plan.cast(inputs[0], getattr(self._module.SessionType, dtype)))

    def _keep(self, plan: Any, node: Node, inputs: list[int], found: dict[int, Shape]) -> int:  # noqa: ARG002
        """Dropout gives what it gets, in evaluation."""
        return inputs[0]


_ADD: dict[str, Callable[[CompiledGraph, Any, Node, list[int], dict[int, Shape]], int]] = {
    **dict.fromkeys(_CONVOLUTIONS, CompiledGraph._add_conv2d),
    **dict.fromkeys(_DENSE, CompiledGraph._add_dense),
    **dict.fromkeys(_BATCH_NORMS, CompiledGraph._add_batch_norm2d),
    "max_pool2d": CompiledGraph._add_max_pool2d,
    "avg_pool2d": CompiledGraph._add_avg_pool2d,
    "adaptive_avg_pool2d": CompiledGraph._add_adaptive,
    "add": CompiledGraph._add_sum,
    "add_relu": CompiledGraph._add_sum,
    "concat": CompiledGraph._add_concat,
    "flatten": CompiledGraph._add_flatten,
    "relu": CompiledGraph._add_relu,
    "relu6": CompiledGraph._add_relu6,
    "softmax": CompiledGraph._add_softmax,
    "dropout": CompiledGraph._keep,
    "cast": CompiledGraph._add_cast,
}
"""Operation -> the function that adds it to a plan."""

assert _ADD.keys() >= IN_BFLOAT16


def _before_sums(graph: Graph) -> dict[int, Node]:
    """The output of a sum -> the convolution right before it, which the sum runs with.

    Nothing else reads what the convolution gives.
    """
    following = graph.next_nodes()
    found: dict[int, Node] = {}
    for node in graph:
        after = following.get(node.output)
        if node.op == "conv2d" and after is not None and after.op in ("add", "add_relu"):
            found.setdefault(after.output, node)
    return found


_MOST_VALUES_LOG2 = 48
"""A map of more values fits no memory, and kernels would multiply sizes beyond 64 bits."""


def _check_sizes(images: int, found: list[Shape]) -> None:
    for shape in found:
        if images * math.prod(shape) >= 1 << _MOST_VALUES_LOG2:
            expected = f"maps of fewer than 2**{_MOST_VALUES_LOG2} values"
            shapes.fail("InferenceSession", "x", expected, f"one of shape {(images, *shape)}")


def _four(shape: Shape) -> Shape:
    """(N,C,H,W), where rows (N,features) count as images of one pixel."""
    return shape if len(shape) == 4 else (*shape, 1, 1)


def _is_flat(shape: Shape) -> bool:
    """Whether an image (C,H,W) lies in memory channels-last as it does row by row."""
    return len(shape) == 1 or shape[0] == 1 or shape[1] * shape[2] == 1


def _steps(steps: Pair, size: Shape, padding: shapes.Padding) -> list[int]:
    """A stride or dilation; one that leads beyond the padded image is as good as its size."""
    return [
        min(step, size[1 + axis] + sum(shapes.padding_of_axis(padding, axis)))
        for axis, step in enumerate(steps)
    ]


def _conv_numbers(conv: Conv, kernel: tuple[int, int], x: Shape, y: Shape) -> list[int]:
    return [
        y[0], *kernel, *y[1:], *_steps(conv.stride, x, conv.padding), *conv.padding[:2],
        *_steps(conv.dilation, x, conv.padding), conv.groups,
    ]  # fmt: skip


def _pool_numbers(pool: Pool, x: Shape, y: Shape) -> list[int]:
    return [
        *pool.kernel_size, *y[1:], *_steps(pool.stride, x, pool.padding), *pool.padding[:2],
        *_steps(pool.dilation, x, pool.padding), *pool.padding[-2:],
    ]  # fmt: skip
