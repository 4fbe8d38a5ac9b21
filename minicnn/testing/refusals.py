"""Wrong calls, and the error message that every backend gives for them.

A refusal is an operation's first case with some inputs and attributes changed.  Whatever torch refuses is
refused, and so are shapes that torch would broadcast and dtypes that it would promote.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minicnn.backends.base import Backend, Conv, Pool
from minicnn.backends.primitives import Primitives
from minicnn.ops.cast import bfloat16
from minicnn.testing.batches import table_of
from minicnn.testing.cases import HALVES
from minicnn.testing.checks import FIRST_OF_EACH_OP, Check, drawn
from minicnn.testing.foreign_saved import foreign_saved_checks
from minicnn.testing.operations import OPERATIONS
from minicnn.testing.tolerance import require

FLOATS = "dtype float32, float64 or bfloat16"


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def f64(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float64)


def i64(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def bf16(*shape: int) -> np.ndarray:
    return np.zeros(shape, bfloat16())


def u8(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def _row(**fields: Any) -> dict[str, Any]:
    """A table of four rows, of which the second one has these fields."""
    return {"table": table_of({}, fields, {}, {})}


@dataclass(frozen=True, eq=False)
class Wrong:
    """The op's first case with some inputs and attributes changed, and the message of its error.

    ``ARRAY`` in the message stands for the backend's kind of array.
    """

    op: str
    message: str
    inputs: dict[str, Any] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    torch_refuses: bool = True

    def arguments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The inputs, as NumPy arrays, and the attributes."""
        case = FIRST_OF_EACH_OP[self.op]
        return {**drawn(case, "float32").inputs, **self.inputs}, {**case.attrs, **self.attrs}

    def __str__(self) -> str:
        return f"{self.op}-{self.message}"


REFUSALS: tuple[Wrong, ...] = (
    Wrong("conv2d", f"x: expected {FLOATS}, got int64", {"x": i64(2, 3, 7, 6)}),
    Wrong("conv2d", "x: expected 4 dimensions (N, C, H, W), got 2", {"x": f32(7, 6)}),
    Wrong("conv2d", "x: expected C, H and W of at least 1, got shape (2, 0, 7, 6)", {"x": f32(2, 0, 7, 6)}),
    Wrong("conv2d", "weight: expected dtype float32, got float64", {"weight": f64(4, 3, 3, 3)}),
    Wrong("conv2d", "weight: expected 4 dimensions (F, C/groups, KH, KW), got 2", {"weight": f32(4, 27)}),
    Wrong("conv2d", "weight: expected every dimension of at least 1, got shape (4, 3, 0, 3)",
          {"weight": f32(4, 3, 0, 3)}),
    Wrong("conv2d", "weight: expected C=3, got C=4", {"weight": f32(4, 4, 3, 3)}),
    Wrong("conv2d", "weight: expected C/groups=1, got C/groups=3",
          {"weight": f32(6, 3, 3, 3), "bias": None},
          {"groups": 3}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got 2", attrs={"groups": 2}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got 0", attrs={"groups": 0}),
    Wrong("conv2d", "bias: expected shape (4,), got (3,)", {"bias": f32(3)}),
    Wrong("conv2d", "bias: expected shape (4,), got (4, 1)", {"bias": f32(4, 1)}),
    Wrong("conv2d", "bias: expected dtype float32, got float64", {"bias": f64(4)}),
    Wrong("conv2d", "stride: expected two integers of at least 1, got (1, 0)", attrs={"stride": (1, 0)}),
    Wrong("conv2d", "padding: expected two or four integers of at least 0, got (-1, 0)",
          attrs={"padding": (-1, 0)}),
    Wrong("conv2d", "dilation: expected two integers of at least 1, got (0, 1)",
          attrs={"dilation": (0, 1)}),
    Wrong("conv2d", "x: expected H of at least 9, got H=7", attrs={"dilation": (4, 1)}),
    Wrong("conv2d", "x: expected W of at least 3, got W=2", {"x": f32(2, 3, 7, 2)}),
    Wrong("conv2d", "x: expected H of at least 8, got H=7", {"weight": f32(4, 3, 12, 6)},
          {"padding": (1, 0, 3, 1)}),
    Wrong("max_pool2d", f"x: expected {FLOATS}, got bool", {"x": f32(2, 3, 6, 8) > 0}),
    Wrong("max_pool2d", "x: expected 4 dimensions (N, C, H, W), got 2", {"x": f32(6, 8)}),
    Wrong("max_pool2d", "kernel_size: expected two integers of at least 1, got (0, 2)",
          attrs={"kernel_size": (0, 2)}),
    Wrong("max_pool2d", "stride: expected two integers of at least 1, got (2, 0)",
          attrs={"stride": (2, 0)}),
    Wrong("max_pool2d", "dilation: expected two integers of at least 1, got (0, 1)",
          attrs={"dilation": (0, 1)}),
    Wrong("max_pool2d", "padding: expected two or four integers of at least 0, got (0, -1)",
          attrs={"padding": (0, -1)}),
    Wrong("max_pool2d", "padding: expected at most half of kernel_size (2, 2), got (2, 1)",
          attrs={"padding": (2, 1)}),
    Wrong("max_pool2d", "x: expected H of at least 7, got H=6", attrs={"kernel_size": (7, 2)}),
    Wrong("avg_pool2d", "x: expected 4 dimensions (N, C, H, W), got 2", {"x": f32(6, 8)}),
    Wrong("avg_pool2d", "kernel_size: expected two integers of at least 1, got (2, 0)",
          attrs={"kernel_size": (2, 0)}),
    Wrong("avg_pool2d", "stride: expected two integers of at least 1, got (0, 2)",
          attrs={"stride": (0, 2)}),
    Wrong("avg_pool2d", "padding: expected at most half of kernel_size (2, 2), got (1, 2)",
          attrs={"padding": (1, 2)}),
    Wrong("avg_pool2d", "x: expected W of at least 9, got W=8", attrs={"kernel_size": (2, 9)}),
    Wrong("adaptive_avg_pool2d", "x: expected 4 dimensions (N, C, H, W), got 1", {"x": f32(6)}),
    Wrong("adaptive_avg_pool2d", "output_size: expected two integers of at least 1, got (1, -1)",
          attrs={"output_size": (1, -1)}),
    Wrong("relu", f"x: expected {FLOATS}, got int64", {"x": i64(3)}, torch_refuses=False),
    Wrong("relu6", f"x: expected {FLOATS}, got int64", {"x": i64(3)}, torch_refuses=False),
    Wrong("dense", "x: expected 2 dimensions (N, in), got 3", {"x": f32(4, 1, 5)}, torch_refuses=False),
    Wrong("dense", f"x: expected {FLOATS}, got int64", {"x": i64(4, 5)}),
    Wrong("dense", "weight: expected dtype float32, got float64", {"weight": f64(7, 5)}),
    Wrong("dense", "weight: expected 2 dimensions (out, in), got 1", {"weight": f32(5)}),
    Wrong("dense", "weight: expected in=5, got in=6", {"weight": f32(7, 6)}),
    Wrong("dense", "bias: expected shape (7,), got (6,)", {"bias": f32(6)}),
    Wrong("batch_norm2d", "x: expected 4 dimensions (N, C, H, W), got 1", {"x": f32(3)}),
    Wrong("batch_norm2d", "weight: expected shape (3,), got (4,)", {"weight": f32(4)}),
    Wrong("batch_norm2d", "weight: expected dtype float32, got float64", {"weight": f64(3)}),
    Wrong("batch_norm2d", "bias: expected shape (3,), got (2,)", {"bias": f32(2)}),
    Wrong("batch_norm2d", "running_mean: expected shape (3,), got (4,)", {"running_mean": f32(4)}),
    Wrong("batch_norm2d", "running_var: expected shape (3,), got (4,)", {"running_var": f32(4)}),
    Wrong("batch_norm2d", "running_mean: expected shape (3,) in evaluation, got None",
          {"running_mean": None},
          {"training": False}),
    Wrong("batch_norm2d", "running_var: expected shape (3,) in evaluation, got None", {"running_var": None},
          {"training": False}),
    Wrong("batch_norm2d", "x: expected more than 1 value per channel in training, got shape (1, 3, 1, 1)",
          {"x": f32(1, 3, 1, 1)}),
    Wrong("fold_batch_norm2d", "weight: expected dtype float32 or float64, got int64",
          {"weight": i64(5, 3, 3, 3)}, torch_refuses=False),
    Wrong("fold_batch_norm2d", "weight: expected 4 dimensions (F, C/groups, KH, KW), got 2",
          {"weight": f32(5, 3)}, torch_refuses=False),
    Wrong("fold_batch_norm2d", "weight: expected every dimension of at least 1, got shape (5, 0, 3, 3)",
          {"weight": f32(5, 0, 3, 3)}, torch_refuses=False),
    Wrong("fold_batch_norm2d", "bias: expected shape (5,), got (4,)", {"bias": f32(4)}),
    Wrong("fold_batch_norm2d", "gamma: expected dtype float32, got float64", {"gamma": f64(5)},
          torch_refuses=False),
    Wrong("fold_batch_norm2d", "beta: expected shape (5,), got (5, 1)", {"beta": f32(5, 1)},
          torch_refuses=False),
    Wrong("fold_batch_norm2d", "running_mean: expected shape (5,), got (6,)", {"running_mean": f32(6)}),
    Wrong("fold_batch_norm2d", "running_var: expected shape (5,), got (3,)", {"running_var": f32(3)}),
    Wrong("dropout", "keep_mask: expected dtype bool, got float32", {"keep_mask": f32(4, 3, 5, 5)},
          torch_refuses=False),
    Wrong("dropout", "keep_mask: expected shape (4, 3, 5, 5), got (4, 3, 5, 4)",
          {"keep_mask": f32(4, 3, 5, 4) > 0}),
    Wrong("dropout", "p: expected a number from 0 to 1, got 1.5", attrs={"p": 1.5}, torch_refuses=False),
    Wrong("softmax", "x: expected 2 dimensions (N, K), got 1", {"x": f32(10)}),
    Wrong("softmax", "x: expected dtype float32 or float64, got int64", {"x": i64(5, 10)}),
    Wrong("softmax_cross_entropy", "logits: expected 2 dimensions (N, K), got 3",
          {"logits": f32(6, 10, 1)}),
    Wrong("softmax_cross_entropy", "labels: expected shape (6,), got (5,)", {"labels": i64(5)}),
    Wrong("softmax_cross_entropy", "labels: expected values from 0 to 9, got 10", {"labels": i64(6) + 10}),
    Wrong("softmax_cross_entropy", "labels: expected values from 0 to 9, got -1", {"labels": i64(6) - 1}),
    Wrong("softmax_cross_entropy", "labels: expected shape (6, 10), got (6, 9)", {"labels": f32(6, 9)}),
    Wrong("softmax_cross_entropy", "labels: expected dtype int64 or float32, got int32",
          {"labels": np.zeros(6, np.int32)}),
    Wrong("softmax_cross_entropy", "class_weight: expected shape (10,), got (9,)",
          {"class_weight": f32(9)}),
    Wrong("softmax_cross_entropy", "class_weight: expected dtype float32, got float64",
          {"class_weight": f64(10)}),
    Wrong("softmax_cross_entropy", "label_smoothing: expected a number from 0 to 1, got 1.5",
          attrs={"label_smoothing": 1.5}),
    Wrong("softmax_cross_entropy", "label_smoothing: expected a number from 0 to 1, got -0.5",
          attrs={"label_smoothing": -0.5}, torch_refuses=False),
    Wrong("add", "b: expected shape (2, 3, 4, 5), got (2, 3, 4, 4)", {"b": f32(2, 3, 4, 4)}),
    Wrong("add", "b: expected shape (2, 3, 4, 5), got (2, 3, 4, 1)", {"b": f32(2, 3, 4, 1)},
          torch_refuses=False),
    Wrong("add", "b: expected dtype float32, got float64", {"b": f64(2, 3, 4, 5)}, torch_refuses=False),
    Wrong("concat", "xs[1]: expected N, H, W = (2, 4, 5), got (2, 4, 6)", {"x1": f32(2, 3, 4, 6)}),
    Wrong("concat", "xs[1]: expected N, H, W = (2, 4, 5), got (1, 4, 5)", {"x1": f32(1, 3, 4, 5)}),
    Wrong("concat", "xs[1]: expected dtype float32, got float64", {"x1": f64(2, 3, 4, 5)},
          torch_refuses=False),
    Wrong("flatten", "x: expected 4 dimensions (N, C, H, W), got 1", {"x": f32(3)}),
    Wrong("conv2d", "x: expected 4 dimensions (N, C, H, W), got 5", {"x": f32(1, 2, 3, 7, 6)}),
    Wrong("conv2d", "x: expected 4 dimensions (N, C, H, W), got 3", {"x": f32(3, 7, 6)},
          torch_refuses=False),
    Wrong("conv2d", f"x: expected {FLOATS}, got complex64",
          {"x": np.zeros((2, 3, 7, 6), np.complex64)}),
    Wrong("conv2d", "weight: expected dtype float64, got float32", {"x": f64(2, 3, 7, 6)}),
    Wrong("conv2d", "weight: expected dtype float32, got int64", {"weight": i64(4, 3, 3, 3)}),
    Wrong("conv2d", "weight: expected 4 dimensions (F, C/groups, KH, KW), got 3", {"weight": f32(4, 3, 3)}),
    Wrong("conv2d", "weight: expected every dimension of at least 1, got shape (0, 3, 3, 3)",
          {"weight": f32(0, 3, 3, 3)}, torch_refuses=False),
    Wrong("conv2d", "x: expected H of at least 9, got H=7", {"weight": f32(4, 3, 9, 9)}),
    Wrong("conv2d", "x: expected H of at least 8, got H=7", {"weight": f32(4, 3, 12, 6)},
          {"padding": (2, 0)}),
    Wrong("conv2d", "bias: expected dtype float32, got int64", {"bias": i64(4)}),
    Wrong("conv2d", "bias: expected shape (4,), got ()", {"bias": f32()}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got -1", attrs={"groups": -1}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got 3", attrs={"groups": 3}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got 1.5", attrs={"groups": 1.5}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got None", attrs={"groups": None}),
    Wrong("conv2d", "groups: expected a divisor of C=3 and F=4, got '1'", attrs={"groups": "1"}),
    Wrong("conv2d", "stride: expected two integers below 2**31, got (1, 2147483648)",
          attrs={"stride": (1, 2**31)}, torch_refuses=False),
    Wrong("conv2d", "padding: expected two or four integers below 2**31, got (2147483648, 0)",
          attrs={"padding": (2**31, 0)}),
    Wrong("max_pool2d", "x: expected 4 dimensions (N, C, H, W), got 5", {"x": f32(1, 2, 3, 6, 8)}),
    Wrong("max_pool2d", "x: expected C, H and W of at least 1, got shape (2, 3, 0, 8)",
          {"x": f32(2, 3, 0, 8)}),
    Wrong("max_pool2d", "x: expected W of at least 9, got W=8",
          attrs={"kernel_size": (2, 5), "dilation": (1, 2)}),
    Wrong("max_pool2d", "padding: expected at most half of kernel_size (3, 3), got (0, 2)",
          attrs={"kernel_size": (3, 3), "padding": (0, 2)}),
    Wrong("avg_pool2d", f"x: expected {FLOATS}, got int64", {"x": i64(2, 3, 6, 8)},
          torch_refuses=False),
    Wrong("avg_pool2d", "x: expected C, H and W of at least 1, got shape (2, 3, 6, 0)",
          {"x": f32(2, 3, 6, 0)}),
    Wrong("avg_pool2d", "padding: expected two or four integers of at least 0, got (-1, 0)",
          attrs={"padding": (-1, 0)}),
    Wrong("adaptive_avg_pool2d", f"x: expected {FLOATS}, got int64", {"x": i64(2, 3, 5, 7)}),
    Wrong("adaptive_avg_pool2d", "output_size: expected two integers of at least 1, got (1, 2, 3)",
          attrs={"output_size": (1, 2, 3)}),
    Wrong("relu", f"x: expected {FLOATS}, got bool", {"x": f32(3) > 0}),
    Wrong("dense", "weight: expected 2 dimensions (out, in), got 3", {"weight": f32(7, 5, 1)}),
    Wrong("dense", "weight: expected in=5, got in=7", {"weight": f32(5, 7)}),
    Wrong("dense", "weight: expected dtype float64, got float32", {"x": f64(4, 5)}),
    Wrong("dense", "bias: expected shape (7,), got (7, 1)", {"bias": f32(7, 1)}),
    Wrong("dense", "bias: expected dtype float32, got float64", {"bias": f64(7)}),
    Wrong("batch_norm2d", f"x: expected {FLOATS}, got int64", {"x": i64(4, 3, 5, 6)}),
    Wrong("batch_norm2d", "weight: expected dtype float32, got int64", {"weight": i64(3)}),
    Wrong("batch_norm2d", "running_var: expected dtype float32, got int64", {"running_var": i64(3)}),
    Wrong("batch_norm2d", "weight: expected shape (3,), got (3, 2)", {"weight": f32(3, 2)}),
    Wrong("softmax", "x: expected dtype float32 or float64, got bool", {"x": f32(5, 10) > 0}),
    Wrong("softmax_cross_entropy", "logits: expected dtype float32 or float64, got int64",
          {"logits": i64(6, 10)}),
    Wrong("softmax_cross_entropy", "logits: expected K of at least 1, got shape (6, 0)",
          {"logits": f32(6, 0)}),
    Wrong("softmax_cross_entropy", "labels: expected shape (6,), got (6, 1)", {"labels": i64(6, 1)}),
    Wrong("softmax_cross_entropy", "labels: expected shape (6,), got ()", {"labels": i64()}),
    Wrong("softmax_cross_entropy", "labels: expected shape (6, 10), got (6,)", {"labels": f32(6)}),
    Wrong("softmax_cross_entropy", "labels: expected dtype int64 or float32, got bool",
          {"labels": f32(6) > 0}),
    Wrong("softmax_cross_entropy", "labels: expected dtype int64 or float32, got float64",
          {"labels": f64(6, 10)}, torch_refuses=False),
    Wrong("softmax_cross_entropy", "labels: expected values from 0 to 9, got -100",
          {"labels": i64(6) - 100}, {"ignore_index": -1}),
    Wrong("softmax_cross_entropy", "labels: expected values from 0 to 9, got -1",
          {"labels": i64(6) - 1}, {"ignore_index": 3}),
    Wrong("softmax_cross_entropy", "ignore_index: expected an integer, got 1.5",
          attrs={"ignore_index": 1.5}),
    Wrong("softmax_cross_entropy", "ignore_index: expected an integer, got None",
          attrs={"ignore_index": None}),
    Wrong("softmax_cross_entropy",
          "ignore_index: expected a negative integer, as labels are probabilities, got 3",
          {"labels": f32(6, 10)}, {"ignore_index": 3}),
    Wrong("softmax_cross_entropy", "reduction: expected 'mean', 'sum' or 'none', got 'median'",
          attrs={"reduction": "median"}),
    Wrong("softmax_cross_entropy", "reduction: expected 'mean', 'sum' or 'none', got None",
          attrs={"reduction": None}),
    Wrong("softmax_cross_entropy", "class_weight: expected shape (10,), got (10, 1)",
          {"class_weight": f32(10, 1)}),
    Wrong("softmax_cross_entropy", "class_weight: expected dtype float32, got int64",
          {"class_weight": i64(10)}),
    Wrong("softmax_cross_entropy", "label_smoothing: expected a number from 0 to 1, got nan",
          attrs={"label_smoothing": float("nan")}, torch_refuses=False),
    Wrong("add", "b: expected shape (2, 3, 4, 5), got (2, 3, 5, 4)", {"b": f32(2, 3, 5, 4)}),
    Wrong("add", f"a: expected {FLOATS}, got int64", {"a": i64(2, 3, 4, 5)},
          torch_refuses=False),
    Wrong("concat", "xs[1]: expected 4 dimensions (N, C, H, W), got 3", {"x1": f32(2, 3, 4)}),
    Wrong("concat", f"xs[0]: expected {FLOATS}, got int64", {"x0": i64(2, 3, 4, 5)},
          torch_refuses=False),
    Wrong("flatten", f"x: expected {FLOATS}, got bool", {"x": f32(3, 2, 4, 5) > 0},
          torch_refuses=False),
    Wrong("conv2d", "weight: expected dtype float32, got bfloat16",
          {"x": bf16(2, 3, 7, 6), "weight": bf16(4, 3, 3, 3)}, torch_refuses=False),
    Wrong("conv2d", "bias: expected dtype float32, got bfloat16", {"x": bf16(2, 3, 7, 6), "bias": bf16(4)},
          torch_refuses=False),
    Wrong("dense", "weight: expected dtype float32, got float64", {"x": bf16(4, 5), "weight": f64(7, 5)},
          torch_refuses=False),
    Wrong("batch_norm2d", "weight: expected dtype float32, got bfloat16",
          {"x": bf16(4, 3, 5, 6), "weight": bf16(3)}, torch_refuses=False),
    Wrong("add", "b: expected dtype bfloat16, got float32", {"a": bf16(2, 3, 4, 5)}, torch_refuses=False),
    Wrong("add", "b: expected dtype float32, got bfloat16", {"b": bf16(2, 3, 4, 5)}, torch_refuses=False),
    Wrong("concat", "xs[1]: expected dtype float32, got bfloat16", {"x1": bf16(2, 1, 4, 5)},
          torch_refuses=False),
    Wrong("softmax", "x: expected dtype float32 or float64, got bfloat16", {"x": bf16(5, 10)},
          torch_refuses=False),
    Wrong("softmax_cross_entropy", "logits: expected dtype float32 or float64, got bfloat16",
          {"logits": bf16(6, 10)}, torch_refuses=False),
    Wrong("cast", "x: expected dtype float32 or bfloat16, got float64", {"x": f64(3)}, torch_refuses=False),
    Wrong("cast", "dtype: expected 'float32' or 'bfloat16', got 'float64'", attrs={"dtype": "float64"},
          torch_refuses=False),
    Wrong("cast", "dtype: expected 'float32' or 'bfloat16', got None", attrs={"dtype": None},
          torch_refuses=False),
    Wrong("cast", "x: expected ARRAY, got None", {"x": None}),
    *(Wrong("make_batch", message, inputs, attrs, torch_refuses=False) for message, inputs, attrs in (
        ("images: expected ARRAY, got list", {"images": [1]}, {}),
        ("images: expected dtype uint8, got float32", {"images": f32(5, 2, 8, 8)}, {}),
        ("images: expected 4 dimensions (M, C, H, W), got 2", {"images": u8(5, 8)}, {}),
        ("images: expected C, H and W of at least 1, got shape (5, 2, 0, 8)", {"images": u8(5, 2, 0, 8)},
         {}),
        ("images: expected fewer than 2**30 values an image with a border of 16 pixels, got shape "
         "(0, 1, 67108864, 1)", {"images": u8(0, 1, 2**26, 1)}, {}),
        ("rows: expected a numpy.ndarray, got list", {}, {"rows": [0, 1]}),
        ("rows: expected dtype int64, got int32", {}, {"rows": np.zeros(4, np.int32)}),
        ("rows: expected 1 dimension (B,), got 2", {}, {"rows": i64(4, 1)}),
        ("rows: expected values from 0 to 4, got 5", {}, {"rows": i64(4) + 5}),
        ("rows: expected values from 0 to 4, got -1", {}, {"rows": i64(4) - 1}),
        ("table: expected a numpy.ndarray, got None", {}, {"table": None}),
        ("table: expected dtype BATCH_ROW, got f", {}, {"table": f32(4)}),
        ("table: expected shape (4,), got (3,)", {}, {"table": table_of({}, {}, {})}),
        ("mean: expected shape (2,), got (3,)", {"mean": f32(3)}, {}),
        ("std: expected shape (2,), got (2, 1)", {"std": f32(2, 1)}, {}),
        ("table[1]: expected finite numbers, got another", {}, _row(share=np.nan)),
        ("table[1]: expected finite numbers, got another", {}, _row(affine=np.inf)),
        ("table[1]: expected a reach within -1 and (8, 8), got another", {},
         _row(warped=1, reach=(-1, -1, 8, 9))),
        ("table[1]: expected a reach within -1 and (8, 8), got another", {},
         _row(warped=1, reach=(3, 0, 2, 4))),
        ("table[1]: expected a step of at least 1, got a smaller one", {}, _row(step=0)),
        ("table[1]: expected a partner from 0 to 3, got another", {}, _row(partner=4)),
        ("table[1]: expected a partner from 0 to 3, got another", {}, _row(partner=-1)),
    )),
    *(Wrong(op, f"{name}: expected ARRAY, got {'None' if value is None else 'list'}", {name: value})
      for op, name in (
          ("conv2d", "x"), ("conv2d", "weight"), ("max_pool2d", "x"), ("avg_pool2d", "x"),
          ("adaptive_avg_pool2d", "x"), ("relu", "x"), ("dense", "x"), ("dense", "weight"),
          ("batch_norm2d", "x"), ("fold_batch_norm2d", "running_mean"), ("dropout", "keep_mask"),
          ("softmax", "x"), ("softmax_cross_entropy", "logits"), ("softmax_cross_entropy", "labels"),
          ("add", "b"),
      ) for value in (None, [1.0])),
    *(Wrong(op, f"padding: expected two or four integers of at least 0, got {got}",
            attrs={"padding": padding}, torch_refuses=len(padding) != 4)  # torch cuts off what is negative
      for op in ("conv2d", "max_pool2d", "avg_pool2d") for padding, got in (
          ((1.5, 1), "(1.5, 1)"), ((1, 1, 1), "(1, 1, 1)"), ((2**63, 1), f"({2**63}, 1)"), ("11", "str"),
          (("a", 1), "('a', 1)"), ((1, 1, 0, -1), "(1, 1, 0, -1)"),
      )),
    *(Wrong("max_pool2d", f"padding: expected at most half of kernel_size (3, 2), got {padding}",
            attrs={"kernel_size": (3, 2), "padding": padding}, torch_refuses=False)  # a padded x is not
      for padding in ((0, 0, 2, 0), (1, 1, 0, 2), (0, 2, 0, 0))),
    Wrong("avg_pool2d", "x: expected W of at least 7, got W=6",
          {"x": f32(1, 1, 8, 6)}, {"kernel_size": (2, 10), "padding": (0, 1, 0, 2)}),
    *(Wrong(op, f"{name}: expected True or False, got {value!r}", attrs={name: value}, torch_refuses=False)
      for op, name in (
          ("max_pool2d", "ceil_mode"), ("avg_pool2d", "ceil_mode"),
      ) for value in ("x", None, 1, (), 0.0)),
    *(Wrong(op, f"{name}: expected two integers of at least 1, got {got}",
            attrs={name: pair})
      for op, name in (
          ("conv2d", "stride"), ("conv2d", "dilation"),
          ("max_pool2d", "kernel_size"), ("max_pool2d", "stride"),
          ("max_pool2d", "dilation"), ("avg_pool2d", "kernel_size"), ("avg_pool2d", "stride"),
          ("adaptive_avg_pool2d", "output_size"),
      ) for pair, got in (
          ((1.5, 1), "(1.5, 1)"), ((1, 1, 1), "(1, 1, 1)"), ((2**63, 1), f"({2**63}, 1)"), ("11", "str"),
          (("a", 1), "('a', 1)"), ((-1, 1), "(-1, 1)"),
      )),
    *(Wrong(op, f"{name}: expected a number, got {value!r}", attrs={name: value})
      for op, name in (
          ("batch_norm2d", "momentum"), ("batch_norm2d", "eps"), ("fold_batch_norm2d", "eps"),
          ("dropout", "p"), ("softmax_cross_entropy", "label_smoothing"),
      ) for value in ("x", None, (1,))),
)  # fmt: skip

ARRAYS = {"numpy": "a numpy.ndarray", "cpp": "a torch.Tensor", "cuda": "a torch.Tensor"}

FUSED = {
    "conv2d": ("conv2d_relu", "conv2d_max_pool2d", "conv2d_relu_max_pool2d"),
    "dense": ("dense_relu",),
    "batch_norm2d": ("batch_norm2d_relu", "batch_norm2d_add_relu", "batch_norm2d_relu_max_pool2d"),
    "add": ("add_relu",),
}
"""Operation -> the fused operations that begin with it: they refuse the same, with the same message."""


def refusal_checks() -> Iterator[Check]:
    """Every wrong call, of the operation and of the fused operations that begin with it.

    Then every backward pass with what another call saved.
    """
    for wrong in REFUSALS:
        for op in (wrong.op, *FUSED.get(wrong.op, ())):
            yield Check(op, "float32", "refusal", wrong.message, partial(_refused, wrong, op))
    yield from flag_checks()
    yield from foreign_saved_checks()


ATTRIBUTES = {"conv": Conv((1, 1), (0, 0), (1, 1), 1), "pool": Pool(**HALVES)}


def flag_checks() -> Iterator[Check]:
    """Every function with flags, each of them given something that is neither True nor False."""
    for name, function in {**vars(Primitives), **vars(Backend)}.items():
        if not name.endswith(("_forward", "_backward")):
            continue
        parameters = inspect.signature(function).parameters.values()
        flags = [p.name for p in parameters if p.annotation == "bool" and p.name != "ceil_mode"]
        if flags:
            op = name.removesuffix("_forward")
            message = f"{' '.join(flags)}: expected True or False"
            yield Check(op, "float32", "refusal", message, partial(_flags_are_refused, name, flags))


def _flags_are_refused(name: str, flags: list[str], backend: Backend) -> None:
    """A flag is looked at before all else, so the other arguments may be anything."""
    parameters = list(inspect.signature(getattr(Backend, name)).parameters.values())[1:]
    anything = [None for p in parameters if p.kind is not p.KEYWORD_ONLY]
    named: dict[str, Any] = {
        p.name: p.name in flags or None for p in parameters if p.kind is p.KEYWORD_ONLY
    }
    named |= {key: value for key, value in ATTRIBUTES.items() if key in named}
    for flag in flags:
        for wrong in ("x", None, 1, (), 0.0):
            expected = f"[{name.removesuffix('_forward')}] {flag}: expected True or False, got {wrong!r}"
            got = "a result"
            try:
                getattr(backend, name)(*anything, **{**named, flag: wrong})
            except ValueError as error:
                got = repr(str(error))
            require(got == repr(expected), f"expected the error {expected!r}, got {got}")


def _refused(wrong: Wrong, op: str, backend: Backend) -> None:
    """The call raises ValueError with exactly these words."""
    inputs, attrs = wrong.arguments()
    if op.endswith("add_relu") and op != "add_relu":
        inputs["residual"] = drawn(FIRST_OF_EACH_OP[wrong.op], "float32").inputs["x"]
    if op.endswith("max_pool2d") and op != wrong.op:
        attrs["pool"] = HALVES
    arrays = {name: backend.asarray(a) if isinstance(a, np.ndarray) else a for name, a in inputs.items()}
    expected = f"[{wrong.op}] {wrong.message}".replace("ARRAY", ARRAYS[backend.name])
    try:
        OPERATIONS[op].run(backend, arrays, attrs)
    except ValueError as error:
        require(str(error) == expected, f"expected the error {expected!r}, got {str(error)!r}")
    else:
        raise AssertionError(f"expected the error {expected!r}, got a result")
