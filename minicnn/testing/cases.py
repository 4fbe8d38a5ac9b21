"""The table of cases: one line each, for every operation of the contract.

Shapes are small, so that the whole table runs in seconds, and awkward: H differs from W, channels are
odd or one more than a vector's width, windows overlap, leave gaps or hang over the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minicnn.shapes import Padding
from minicnn.testing.batches import TURNED, table_of

Draw = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """One operation, a function that draws each of its inputs, and its attributes.

    ``exact`` marks inputs of small whole numbers.  Then every result is exact in float32: ties are real
    ties, and results are compared for equality.
    """

    op: str
    id: str
    inputs: Mapping[str, Draw | None]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False

    def make_inputs(self, rng: np.random.Generator) -> dict[str, np.ndarray | None]:
        """The inputs by argument name: float64 arrays, int64 labels, a bool mask, or None."""
        return {name: None if draw is None else draw(rng) for name, draw in self.inputs.items()}

    def __str__(self) -> str:
        return f"{self.op}-{self.id}"


# ---- how inputs are drawn ------------------------------------------------------------------------


def _normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Draw:
    return lambda rng: rng.standard_normal(shape) * scale + shift


def _integers(*shape: int, low: int = -3, high: int = 3) -> Draw:
    return lambda rng: rng.integers(low, high + 1, shape).astype(np.float64)


def _positive(*shape: int) -> Draw:
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _sides(padding: int | Padding) -> Padding:
    return (padding, padding) if isinstance(padding, int) else padding


# ---- one function for each kind of line ----------------------------------------------------------

Size = int | tuple[int, int]
Shape = tuple[int, ...]


def _conv(
    id: str, x: Shape, filters: int, kernel: Size, *, stride: Size = 1, padding: int | Padding = 0,
    dilation: Size = 1, groups: int = 1, bias: bool = True, pool: Mapping[str, Any] | None = None,
    exact: bool = False, op: str = "conv2d",
) -> Case:  # fmt: skip
    draw = _integers if exact else _normal
    inputs = {
        "x": draw(*x),
        "weight": draw(filters, x[1] // groups, *_pair(kernel)),
        "bias": draw(filters) if bias else None,
    }
    attrs: dict[str, Any] = {
        "stride": _pair(stride), "padding": _sides(padding), "dilation": _pair(dilation), "groups": groups,
    }  # fmt: skip
    if pool is not None:
        attrs["pool"] = pool
    return Case(op, id, inputs, attrs, exact)


def _window(
    kernel: Size, *, stride: Size | None = None, padding: int | Padding = 0, dilation: Size = 1,
    ceil: bool = False,
) -> dict[str, Any]:  # fmt: skip
    return {
        "kernel_size": _pair(kernel), "stride": _pair(kernel if stride is None else stride),
        "padding": _sides(padding), "dilation": _pair(dilation), "ceil_mode": ceil,
    }  # fmt: skip


def _max_pool(id: str, x: Shape, window: Mapping[str, Any], *, exact: bool = False) -> Case:
    return Case("max_pool2d", id, {"x": _integers(*x) if exact else _normal(*x)}, window, exact)


def _avg_pool(id: str, x: Shape, window: Mapping[str, Any], *, count_include_pad: bool = True) -> Case:
    attrs = {name: value for name, value in window.items() if name != "dilation"}
    return Case("avg_pool2d", id, {"x": _normal(*x)}, {**attrs, "count_include_pad": count_include_pad})


def _adaptive(id: str, x: Shape, output_size: Size) -> Case:
    return Case("adaptive_avg_pool2d", id, {"x": _normal(*x)}, {"output_size": _pair(output_size)})


def _dense(id: str, n: int, width: int, out: int, *, bias: bool = True, op: str = "dense") -> Case:
    inputs = {"x": _normal(n, width), "weight": _normal(out, width), "bias": _normal(out) if bias else None}
    return Case(op, id, inputs)


def _batch_norm(
    id: str, x: Shape, *, training: bool = True, affine: bool = True, running: bool = True,
    momentum: float = 0.1, eps: float = 1e-5, shift: float = 0.0, residual: bool = False,
    pool: Mapping[str, Any] | None = None, op: str = "batch_norm2d",
) -> Case:  # fmt: skip
    c = x[1]
    inputs: dict[str, Draw | None] = {"x": _normal(*x, scale=2.0, shift=shift)}
    if residual:
        inputs["residual"] = _normal(*x)
    inputs["weight"] = _normal(c) if affine else None
    inputs["bias"] = _normal(c) if affine else None
    inputs["running_mean"] = _normal(c) if running else None
    inputs["running_var"] = _positive(c) if running else None
    attrs: dict[str, Any] = {"training": training, "momentum": momentum, "eps": eps}
    return Case(op, id, inputs, attrs if pool is None else {**attrs, "pool": pool})


def _fold(id: str, weight: Shape, *, bias: bool = True, affine: bool = True, eps: float = 1e-5) -> Case:
    f = weight[0]
    inputs: dict[str, Draw | None] = {
        "weight": _normal(*weight),
        "bias": _normal(f) if bias else None,
        "gamma": _normal(f) if affine else None,
        "beta": _normal(f) if affine else None,
        "running_mean": _normal(f),
        "running_var": _positive(f),
    }
    return Case("fold_batch_norm2d", id, inputs, {"eps": eps})


def _dropout(id: str, x: Shape, p: float) -> Case:
    return Case("dropout", id, {"x": _normal(*x), "keep_mask": lambda rng: rng.random(x) >= p}, {"p": p})


def _softmax(id: str, n: int, k: int, *, scale: float = 1.0) -> Case:
    return Case("softmax", id, {"x": _normal(n, k, scale=scale)})


def _loss(
    id: str, n: int, k: int, *, scale: float = 1.0, probabilities: bool = False, smoothing: float = 0.0,
    weighted: bool = False, ignored: int | None = None, reduction: str = "mean",
) -> Case:  # fmt: skip
    """``ignored`` is the label of about a third of the rows."""

    def labels(rng: np.random.Generator) -> np.ndarray:
        drawn = rng.integers(0, k, n)
        return drawn if ignored is None else np.where(np.arange(n) % 3 == 1, ignored, drawn)

    inputs: dict[str, Draw | None] = {
        "logits": _normal(n, k, scale=scale),
        "labels": (lambda rng: rng.dirichlet(np.ones(k), n)) if probabilities else labels,
        "class_weight": _positive(k) if weighted else None,
    }
    attrs = {
        "label_smoothing": smoothing, "ignore_index": -100 if ignored is None else ignored,
        "reduction": reduction,
    }  # fmt: skip
    return Case("softmax_cross_entropy", id, inputs, attrs)


def _concat(id: str, x: Shape, channels: tuple[int, ...]) -> Case:
    return Case("concat", id, {f"x{i}": _normal(x[0], c, *x[1:]) for i, c in enumerate(channels)})


def _batch(id: str, *rows: Mapping[str, Any], channels: int = 2) -> Case:
    """Images of 8x8 pixels: numbers are such that all arithmetic before normalising is exact in float32."""
    inputs: dict[str, Draw | None] = {
        "images": lambda rng: rng.integers(0, 256, (5, channels, 8, 8), dtype=np.uint8) if rows
        else np.zeros((0, channels, 8, 8), np.uint8),
        "mean": lambda rng: rng.integers(1, 8, channels) / 8,
        "std": _positive(channels),
    }  # fmt: skip
    return Case("make_batch", id, inputs, {"rows": np.arange(len(rows)) * 3 % 5, "table": table_of(*rows)})


HALVES = _window(2)

_conv_relu = partial(_conv, op="conv2d_relu")
_conv_pool = partial(_conv, op="conv2d_max_pool2d")
_conv_relu_pool = partial(_conv, op="conv2d_relu_max_pool2d")
_dense_relu = partial(_dense, op="dense_relu")
_batch_norm_relu = partial(_batch_norm, op="batch_norm2d_relu")
_batch_norm_add_relu = partial(_batch_norm, op="batch_norm2d_add_relu", residual=True)
_batch_norm_relu_pool = partial(_batch_norm, op="batch_norm2d_relu_max_pool2d", pool=HALVES)

# ---- the table -------------------------------------------------------------------------------------

CASES: tuple[Case, ...] = (
    _conv("3x3", (2, 3, 7, 6), 4, 3),
    _conv("padding", (2, 3, 8, 8), 5, 3, padding=1),
    _conv("H!=W", (3, 2, 5, 9), 3, (3, 2), padding=(1, 0)),
    _conv("1x1", (2, 5, 4, 6), 7, 1),
    _conv("1x1-stride2", (2, 5, 5, 7), 3, 1, stride=2),
    _conv("1x1-padding", (2, 3, 4, 3), 3, 1, padding=1),
    _conv("kernel=image", (3, 2, 4, 5), 6, (4, 5)),
    _conv("1x1-image", (4, 6, 1, 1), 3, 1),
    _conv("image-inside-padding", (2, 2, 1, 2), 3, 3, padding=1),
    _conv("stride2", (2, 3, 9, 8), 4, 3, stride=2, padding=1),
    _conv("stride-pair", (2, 3, 9, 10), 4, 3, stride=(1, 3), padding=(2, 1)),
    _conv("stride>kernel", (2, 3, 11, 10), 4, 2, stride=(3, 4)),
    _conv("stride-drops-edge", (2, 3, 10, 9), 4, 3, stride=4),
    _conv("padding>kernel", (1, 2, 3, 3), 2, 2, padding=3),
    _conv("dilation2", (2, 3, 9, 8), 4, 3, dilation=2),
    _conv("dilation-pair", (2, 2, 10, 9), 3, 3, dilation=(3, 2), padding=(3, 1), stride=(2, 1)),
    _conv("groups2", (2, 4, 6, 7), 6, 3, groups=2, padding=1),
    _conv("groups3-stride2-dilation2", (2, 6, 9, 9), 3, 3, groups=3, stride=2, dilation=2, padding=2),
    _conv("depthwise", (2, 5, 7, 6), 5, 3, groups=5, padding=1),
    _conv("depthwise-wide", (1, 18, 4, 11), 18, 3, groups=18, padding=1),
    _conv("depthwise-wide-5x5-stride2", (1, 17, 6, 9), 17, 5, groups=17, stride=2, padding=2),
    _conv("depthwise-multiplier2", (2, 3, 6, 5), 6, 3, groups=3, stride=2),
    _conv("grouped-1x1", (2, 8, 5, 4), 4, 1, groups=4),
    _conv("no-bias", (2, 3, 6, 6), 4, 3, bias=False),
    _conv("one-channel-5x5", (3, 1, 12, 11), 6, 5, padding=2),
    _conv("one-filter", (2, 3, 5, 5), 1, 3, padding=1),
    _conv("17-channels-33-filters", (2, 17, 6, 7), 33, 3, padding=1),
    _conv("many-tiles", (2, 16, 19, 21), 16, 3, padding=1),
    _conv("row-kernel", (2, 3, 4, 9), 4, (1, 7), padding=(0, 3)),
    _conv("column-kernel", (2, 3, 9, 4), 4, (7, 1), padding=(3, 0)),
    _conv("7x7-stride2", (1, 3, 20, 18), 8, 7, stride=2, padding=3),
    _conv("batch0", (0, 3, 6, 6), 4, 3, padding=1),
    _conv("batch1", (1, 3, 6, 6), 4, 3, padding=1),
    _conv("batch33", (33, 2, 4, 4), 3, 3, padding=1),
    _conv("small-map", (3, 8, 3, 3), 33, 3, padding=1),
    _conv("small-map-stride2", (2, 9, 6, 5), 32, 3, stride=2, padding=1),
    _conv("patches-beyond-the-cache", (7, 16, 24, 24), 8, 3, padding=1),
    _conv("padding-sides", (2, 3, 7, 6), 4, (3, 2), padding=(0, 2, 1, 0)),
    _conv("padding-after", (2, 5, 6, 7), 4, 4, padding=(1, 1, 2, 2)),
    _conv("padding-after-alone", (2, 3, 6, 7), 5, 3, padding=(0, 0, 1, 2)),
    _conv("padding-before-alone", (2, 3, 6, 7), 5, 3, padding=(2, 1, 0, 0)),
    _conv("padding-below-alone", (2, 3, 6, 7), 5, 3, padding=(0, 0, 1, 0)),
    _conv("padding-sides-stride2", (2, 3, 9, 8), 4, 3, stride=2, dilation=2, padding=(0, 3, 2, 1)),
    _conv("padding-sides-1x1", (2, 4, 4, 3), 6, 1, padding=(0, 0, 1, 2)),
    _conv("padding-sides-depthwise", (2, 5, 7, 6), 5, 3, groups=5, padding=(0, 1, 2, 0)),
    _conv("padding-sides-depthwise-wide", (1, 18, 6, 9), 18, 5, groups=18, stride=2, padding=(1, 0, 2, 3)),
    _conv("padding-sides-groups", (2, 4, 6, 7), 6, 3, groups=2, padding=(0, 1, 1, 0)),
    _conv("padding-sides-winograd", (2, 32, 13, 14), 32, 3, padding=(0, 1, 2, 0)),
    _conv("padding-sides-columns", (3, 9, 4, 2), 33, 3, padding=(2, 0, 0, 2)),
    _conv("padding-far-after", (2, 3, 4, 5), 4, 2, padding=(0, 0, 5, 4)),
    _conv("steps-beyond-the-image", (2, 4, 3, 4), 4, (1, 2), stride=(2**30, 2**31 - 1),
          dilation=(2**30, 1)),
    _conv("integers", (2, 3, 6, 7), 4, 3, padding=1, exact=True),

    _max_pool("2x2", (2, 3, 6, 8), HALVES),
    _max_pool("2x2-odd", (2, 3, 7, 9), HALVES),
    _max_pool("2x2-ceil", (2, 3, 7, 9), _window(2, ceil=True)),
    _max_pool("3x3-stride2-padding", (2, 3, 8, 7), _window(3, stride=2, padding=1)),
    _max_pool("3x3-stride2-ceil", (2, 3, 8, 7), _window(3, stride=2, padding=1, ceil=True)),
    _max_pool("overlapping-stride1", (2, 2, 6, 5), _window(3, stride=1)),
    _max_pool("stride>kernel", (2, 2, 9, 8), _window(2, stride=3)),
    _max_pool("stride>kernel-ceil", (2, 2, 9, 8), _window(2, stride=(3, 4), ceil=True)),
    _max_pool("pairs", (2, 3, 9, 6), _window((3, 2), stride=(2, 1), padding=(1, 0))),
    _max_pool("dilation", (2, 2, 9, 8), _window(3, stride=1, dilation=2)),
    _max_pool("dilation-padding-ceil", (2, 2, 9, 8),
              _window((2, 3), stride=2, padding=1, dilation=(3, 2), ceil=True)),
    _max_pool("padding-sides", (2, 3, 7, 6), _window((3, 2), stride=2, padding=(0, 1, 1, 0))),
    _max_pool("padding-after-2x2", (2, 17, 7, 9), _window(2, padding=(0, 0, 1, 1))),
    _max_pool("padding-before-2x2", (2, 3, 7, 9), _window(2, padding=(1, 1, 0, 0))),
    _max_pool("padding-same", (2, 3, 6, 5), _window(4, stride=1, padding=(1, 1, 2, 2))),
    _max_pool("padding-sides-ceil", (2, 3, 8, 7), _window(4, stride=3, padding=(2, 0, 1, 2), ceil=True)),
    _max_pool("no-window-begins-in-padding-after", (2, 3, 5, 5),
              _window(4, stride=5, padding=(0, 1, 2, 2), ceil=True)),
    _max_pool("padding-sides-dilation", (2, 2, 9, 8),
              _window((3, 2), stride=2, padding=(1, 0, 0, 1), dilation=(2, 3), ceil=True)),
    _max_pool("steps-beyond-the-image", (2, 3, 4, 5),
              _window((1, 2), stride=(2**30, 2**31 - 1), dilation=(2**30, 1), ceil=True)),
    _max_pool("kernel=image", (2, 3, 4, 5), _window((4, 5))),
    _max_pool("1x1", (2, 3, 4, 5), _window(1)),
    _max_pool("1x1-stride2", (2, 3, 4, 5), _window(1, stride=2)),
    _max_pool("window-of-289", (1, 2, 18, 19), _window(17, stride=1)),
    _max_pool("batch0", (0, 3, 6, 6), HALVES),
    _max_pool("batch1", (1, 17, 6, 6), HALVES),
    _max_pool("ties-2x2", (3, 5, 8, 10), HALVES, exact=True),
    _max_pool("ties-overlapping", (3, 5, 8, 10), _window(3, stride=2, padding=1), exact=True),
    _max_pool("ties-dilated-ceil", (2, 3, 9, 10), _window(3, stride=2, padding=1, dilation=2, ceil=True),
              exact=True),
    _max_pool("ties-stride1", (2, 3, 6, 6), _window(2, stride=1), exact=True),

    _avg_pool("2x2", (2, 3, 6, 8), HALVES),
    _avg_pool("2x2-odd", (2, 3, 7, 9), HALVES),
    _avg_pool("2x2-ceil", (2, 3, 7, 9), _window(2, ceil=True)),
    _avg_pool("padding-counted", (2, 3, 8, 7), _window(3, stride=2, padding=1)),
    _avg_pool("padding-not-counted", (2, 3, 8, 7), _window(3, stride=2, padding=1),
              count_include_pad=False),
    _avg_pool("ceil-padding-counted", (2, 3, 8, 7), _window(3, stride=2, padding=1, ceil=True)),
    _avg_pool("ceil-padding-not-counted", (2, 3, 8, 6), _window(3, stride=2, padding=1, ceil=True),
              count_include_pad=False),
    _avg_pool("pairs", (2, 3, 9, 6), _window((3, 2), stride=(1, 3), padding=(1, 0))),
    _avg_pool("padding-pair", (2, 3, 7, 8), _window((3, 4), stride=2, padding=(0, 2))),
    _avg_pool("overlapping", (2, 2, 6, 5), _window(3, stride=1, padding=1), count_include_pad=False),
    _avg_pool("stride>kernel-ceil", (2, 2, 9, 8), _window(2, stride=(3, 4), ceil=True)),
    _avg_pool("padding-sides-counted", (2, 3, 7, 6), _window((3, 2), stride=2, padding=(0, 1, 1, 0))),
    _avg_pool("padding-sides-not-counted", (2, 3, 6, 5), _window(4, stride=1, padding=(1, 1, 2, 2)),
              count_include_pad=False),
    _avg_pool("padding-sides-ceil-counted", (2, 3, 8, 7),
              _window(4, stride=3, padding=(2, 0, 1, 2), ceil=True)),
    _avg_pool("padding-sides-ceil-not-counted", (2, 17, 8, 7),
              _window(4, stride=3, padding=(0, 2, 1, 0), ceil=True), count_include_pad=False),
    _avg_pool("kernel=image", (2, 3, 4, 5), _window((4, 5))),
    _avg_pool("batch0", (0, 3, 6, 6), HALVES),

    _adaptive("global", (2, 3, 5, 7), 1),
    _adaptive("even", (2, 3, 6, 8), (3, 2)),
    _adaptive("uneven", (2, 3, 7, 10), (3, 4)),
    _adaptive("same", (2, 3, 4, 5), (4, 5)),
    _adaptive("upsampling", (2, 3, 3, 2), (5, 7)),
    _adaptive("batch0", (0, 3, 5, 5), 2),

    Case("relu", "image", {"x": _normal(2, 3, 5, 7)}),
    Case("relu", "matrix", {"x": _normal(5, 33)}),
    Case("relu", "zeros", {"x": _integers(3, 4, 5, 5)}, exact=True),
    Case("relu", "batch0", {"x": _normal(0, 3, 4, 4)}),
    Case("relu6", "image", {"x": _normal(2, 3, 5, 7, scale=4, shift=3)}),
    Case("relu6", "ends", {"x": _integers(3, 4, 5, 5, low=-2, high=8)}, exact=True),
    Case("relu6", "batch0", {"x": _normal(0, 3, 4, 4)}),

    _dense("5x7", 4, 5, 7),
    _dense("no-bias", 4, 5, 7, bias=False),
    _dense("one-output", 6, 9, 1),
    _dense("one-input", 6, 1, 9),
    _dense("wide", 3, 333, 17),
    _dense("many-rows", 67, 18, 33),
    _dense("batch0", 0, 5, 7),
    _dense("batch1", 1, 65, 10),

    _batch_norm("training", (4, 3, 5, 6)),
    _batch_norm("evaluation", (4, 3, 5, 6), training=False),
    _batch_norm("training-not-affine", (3, 5, 4, 4), affine=False),
    _batch_norm("evaluation-not-affine", (3, 5, 4, 4), affine=False, training=False),
    _batch_norm("training-not-running", (3, 5, 4, 4), running=False),
    _batch_norm("momentum-1", (4, 2, 3, 3), momentum=1.0),
    _batch_norm("large-eps", (4, 2, 3, 3), eps=0.5, momentum=0.3),
    _batch_norm("two-values", (2, 3, 1, 1), eps=0.5),
    _batch_norm("batch1", (1, 17, 3, 5)),
    _batch_norm("far-from-zero", (4, 3, 5, 5), shift=30.0),
    _batch_norm("evaluation-batch0", (0, 3, 4, 4), training=False),

    _fold("3x3", (5, 3, 3, 3)),
    _fold("no-bias", (17, 4, 3, 3), bias=False),
    _fold("not-affine", (4, 2, 1, 1), affine=False),
    _fold("nothing-optional", (3, 33, 1, 5), bias=False, affine=False, eps=0.5),
    _fold("depthwise", (6, 1, 3, 2)),
    _fold("many-filters", (130, 8, 3, 3)),

    _dropout("half", (4, 3, 5, 5), 0.5),
    _dropout("tenth-matrix", (7, 33), 0.1),
    _dropout("none", (3, 4), 0.0),
    _dropout("all", (3, 4), 1.0),

    _softmax("10-classes", 5, 10),
    _softmax("1-class", 3, 1),
    _softmax("100-classes", 3, 100, scale=4.0),
    _softmax("batch0", 0, 10),

    _loss("labels", 6, 10),
    _loss("labels-smoothing", 6, 10, smoothing=0.1),
    _loss("labels-weights", 6, 10, weighted=True),
    _loss("labels-smoothing-weights", 9, 5, smoothing=0.3, weighted=True),
    _loss("labels-smoothing-1", 4, 5, smoothing=1.0),
    _loss("probabilities", 6, 10, probabilities=True),
    _loss("probabilities-smoothing", 6, 10, probabilities=True, smoothing=0.2),
    _loss("probabilities-smoothing-weights", 5, 7, probabilities=True, smoothing=0.2, weighted=True),
    _loss("logits-1e4", 6, 10, scale=1e4),
    _loss("logits-1e4-smoothing", 6, 10, scale=1e4, smoothing=0.1, weighted=True),
    _loss("batch1-2-classes", 1, 2),
    _loss("33-rows-17-classes", 33, 17, smoothing=0.1),
    _loss("ignored", 7, 5, ignored=-100),
    _loss("ignored-class-weights", 7, 5, ignored=2, weighted=True),
    _loss("ignored-smoothing", 8, 5, ignored=255, smoothing=0.2),
    _loss("ignored-smoothing-weights", 33, 4, ignored=-1, smoothing=0.2, weighted=True),
    _loss("sum", 6, 10, reduction="sum"),
    _loss("sum-ignored-smoothing-weights", 9, 5, ignored=0, smoothing=0.3, weighted=True, reduction="sum"),
    _loss("sum-probabilities", 6, 10, probabilities=True, smoothing=0.2, weighted=True, reduction="sum"),
    _loss("none", 6, 10, reduction="none"),
    _loss("none-ignored-smoothing-weights", 35, 5, ignored=3, smoothing=0.3, weighted=True,
          reduction="none"),
    _loss("none-probabilities", 6, 10, probabilities=True, smoothing=0.2, weighted=True, reduction="none"),
    _loss("none-batch0", 0, 4, reduction="none"),

    Case("add", "image", {"a": _normal(2, 3, 4, 5), "b": _normal(2, 3, 4, 5)}),
    Case("add", "batch0", {"a": _normal(0, 3, 4, 5), "b": _normal(0, 3, 4, 5)}),
    Case("cast", "to-bfloat16", {"x": _normal(2, 3, 4, 5)}, {"dtype": "bfloat16"}),
    Case("cast", "to-float32", {"x": _normal(7, 5)}, {"dtype": "float32"}),

    _concat("one", (2, 4, 5), (3,)),
    _concat("three", (2, 4, 5), (3, 1, 17)),
    _concat("batch0", (0, 4, 5), (3, 2)),
    Case("flatten", "image", {"x": _normal(3, 2, 4, 5)}),
    Case("flatten", "squares-and-rests", {"x": _normal(2, 20, 5, 7)}),
    Case("flatten", "batch0", {"x": _normal(0, 2, 4, 5)}),

    _batch("moved", {"flip": 1}, {"down": 2, "right": -3}, {"flip": 1, "down": -1, "right": 2}, {}),
    _batch("warped", {"warped": 1, "affine": TURNED},
           {"warped": 1, "affine": ((0.5, 0, 1.25), (0.25, 0.5, -1))},
           {"warped": 1, "affine": ((0.5, 0, -0.25), (0, 0.5, 1.75)), "reach": (2, 0, 5, 3)},
           {"warped": 1, "affine": ((2, 0, -4), (0, 2, -4)), "flip": 1, "right": 1}, channels=3),
    _batch("recoloured", {"brightness": 1.5}, {"contrast": 0.5}, {"contrast": 1.25, "brightness": 0.5},
           {"step": 32}, {"threshold": 100}, {"step": 8, "threshold": 255}, channels=4),
    _batch("boxes", {"cutout": (2, 3, 5, 6)}, {"erase": (-2, 5, 3, 12)}, {"cutout": (4, 4, 4, 8)},
           channels=1),
    _batch("mixed", {"share": 0.75, "partner": 2}, {"patch": (1, 2, 6, 9), "partner": 0},
           {"share": 0.5, "patch": (-1, -1, 3, 3), "partner": 1, "contrast": 0.5}, channels=3),
    _batch("no-images"),

    _conv_relu("padding", (2, 3, 8, 7), 5, 3, padding=1),
    _conv_relu("stride2-groups-no-bias", (2, 4, 9, 8), 6, 3, stride=2, groups=2, bias=False),
    _conv_relu("1x1-17-filters", (2, 8, 5, 4), 17, 1),
    _conv_relu("many-tiles", (1, 16, 10, 11), 16, 3, padding=1),
    _conv_relu("padding-sides", (2, 3, 8, 7), 5, 4, padding=(1, 1, 2, 2)),
    _conv_relu("integers", (3, 2, 7, 7), 5, 3, exact=True),
    _conv_relu("batch0", (0, 3, 6, 6), 4, 3),

    _conv_pool("2x2", (2, 3, 8, 8), 5, 3, padding=1, pool=HALVES),
    _conv_pool("odd-edge", (2, 3, 9, 7), 5, 3, padding=1, pool=HALVES),
    _conv_pool("in-padding", (2, 2, 4, 1), 3, (3, 1), stride=(1, 9), padding=(1, 3), pool=_window(1)),
    _conv_pool("overlapping-no-bias", (2, 3, 9, 8), 4, 3, pool=_window(3, stride=2, padding=1), bias=False),
    _conv_pool("padding-sides", (2, 3, 8, 9), 5, 4, padding=(1, 1, 2, 2), pool=HALVES),
    _conv_pool("pool-padding-sides", (2, 3, 8, 9), 5, 3, pool=_window(3, stride=2, padding=(0, 1, 1, 0))),
    _conv_pool("ties", (2, 2, 8, 8), 4, 3, padding=1, pool=HALVES, exact=True),

    _conv_relu_pool("2x2", (2, 3, 8, 10), 5, 3, padding=1, pool=HALVES),
    _conv_relu_pool("odd-edge-ceil", (2, 3, 9, 7), 5, 3, padding=1, pool=_window(2, ceil=True)),
    _conv_relu_pool("padding-sides", (2, 3, 8, 8), 9, 2, padding=(0, 0, 1, 1), pool=HALVES),
    _conv_relu_pool("padding-sides-overlapping", (2, 3, 8, 8), 4, 3, padding=(0, 1, 2, 0),
                    pool=_window(3, stride=2, padding=1)),
    _conv_relu_pool("pool-padding-after-2x2", (2, 3, 9, 7), 5, 3, padding=1,
                    pool=_window(2, padding=(0, 0, 1, 1))),
    _conv_relu_pool("pool-padding-before-2x2", (2, 3, 9, 7), 5, 3, padding=1,
                    pool=_window(2, padding=(1, 0, 0, 0))),
    _conv_relu_pool("steps-beyond-the-image", (2, 4, 1, 4), 4, (2, 3), stride=(2**30, 1), padding=(1, 1),
                    dilation=(1, 2), groups=2,
                    pool=_window((1, 2), stride=(2**30, 1), padding=(0, 1), dilation=(2**30, 1))),
    _conv_relu_pool("5x5-one-channel", (3, 1, 10, 9), 6, 5, padding=2, pool=HALVES),
    _conv_relu_pool("5x5-16-filters", (2, 6, 9, 9), 16, 5, pool=HALVES),
    _conv_relu_pool("17-channels-no-bias", (1, 17, 8, 8), 18, 3, padding=1, pool=HALVES, bias=False),
    _conv_relu_pool("stride-groups-dilation", (2, 4, 11, 12), 6, 3, stride=(1, 2), padding=1, dilation=2,
                    groups=2, pool=_window(3, stride=2, padding=1)),
    _conv_relu_pool("ties", (3, 2, 8, 9), 5, 3, padding=1, pool=HALVES, exact=True),
    _conv_relu_pool("ties-overlapping", (2, 2, 8, 9), 5, 3, pool=_window(3, stride=2, padding=1),
                    exact=True),
    _conv_relu_pool("batch0", (0, 3, 6, 6), 4, 3, pool=HALVES),

    Case("add_relu", "image", {"a": _normal(2, 3, 4, 5), "b": _normal(2, 3, 4, 5)}),
    Case("add_relu", "zeros", {"a": _integers(2, 5, 4, 5), "b": _integers(2, 5, 4, 5)}, exact=True),
    Case("add_relu", "batch0", {"a": _normal(0, 3, 4, 5), "b": _normal(0, 3, 4, 5)}),

    _dense_relu("5x7", 4, 5, 7),
    _dense_relu("no-bias", 4, 9, 17, bias=False),
    _dense_relu("batch0", 0, 5, 7),

    _batch_norm_relu("training", (4, 3, 5, 6)),
    _batch_norm_relu("evaluation", (4, 3, 5, 6), training=False),
    _batch_norm_relu("training-not-affine", (3, 5, 4, 4), affine=False),
    _batch_norm_add_relu("training", (4, 3, 5, 6)),
    _batch_norm_add_relu("evaluation", (4, 3, 5, 6), training=False),
    _batch_norm_relu_pool("training", (4, 3, 6, 6), pool=HALVES),
    _batch_norm_relu_pool("overlapping", (2, 3, 7, 8), pool=_window(3, stride=2, padding=1)),
    _batch_norm_relu_pool("padding-sides", (2, 3, 7, 8),
                          pool=_window(3, stride=2, padding=(1, 0, 0, 1), ceil=True)),
    _batch_norm_relu_pool("evaluation", (2, 3, 7, 8), training=False, pool=HALVES),
)  # fmt: skip
