"""What torch has to know of each operation of the contract, as a table.

`TABLE` has a row for each operation of the contract (`minicnn.backends.primitives` and `base` say what it
computes).  `minicnn.torch.register` makes torch's operations of the rows; no kernel is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minicnn import shapes
from minicnn.backends.base import Backend, Conv, Pool
from minicnn.torch.op import Op, Results, Shape

CONV = {"int[] stride": "[1, 1]", "int[] padding": "[0, 0]", "int[] dilation": "[1, 1]", "int groups": "1"}
POOL_AFTER = {
    "int[] kernel_size": "[2, 2]", "int[] pool_stride": "[2, 2]", "int[] pool_padding": "[0, 0]",
    "int[] pool_dilation": "[1, 1]", "bool ceil_mode": "False",
}  # fmt: skip
NORM = {"bool training": "False", "float momentum": "0.1", "float eps": "1e-5"}
WEIGHTED = ("Tensor x", "Tensor weight", "Tensor? bias=None")
NORMED = (
    "Tensor? weight=None", "Tensor? bias=None", "Tensor(a!)? running_mean=None",
    "Tensor(b!)? running_var=None",
)  # fmt: skip
RELU_OFF = {torch.uint8: 255, torch.int64: -1}
"""A winner that is no cell of a window, by the dtype of the winners: it passes no gradient on."""


def _needs(need: Sequence[bool]) -> dict[str, bool]:
    """The three options of the contract's backward functions."""
    return dict(zip(("need_dx", "need_dw", "need_db"), need, strict=True))


def _like(x: Tensor, shape: Shape | None = None) -> tuple[Shape, torch.dtype]:
    return (x.shape if shape is None else shape), x.dtype


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of weights, statistics and their gradients beside activations of a dtype."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _same_shape(x: Tensor, *_: Any) -> tuple[tuple[Shape, torch.dtype], ...]:
    return (_like(x),)


# ---- sizes of results ------------------------------------------------------------------------------


def conv_shape(x: Tensor, weight: Any, stride: Shape, padding: Any, dilation: Shape) -> list[Any]:
    """The shape (N,C,H,W) of a convolution's result."""
    sizes = [
        shapes.conv_output_size(
            x.shape[2 + axis], weight.shape[2 + axis], stride[axis],
            shapes.padding_of_axis(padding, axis), dilation[axis],
        )
        for axis in (0, 1)
    ]  # fmt: skip
    return [x.shape[0], weight.shape[0], *sizes]


def _pool_shape(
    shape: Shape, kernel: Shape, stride: Shape, padding: Any, dilation: Shape, ceil_mode: bool
) -> list[Any]:
    sizes = [
        shapes.pool_output_size(
            shape[2 + a], kernel[a], stride[a], shapes.padding_of_axis(padding, a), dilation[a], ceil_mode
        )
        for a in (0, 1)
    ]
    return [*shape[:2], *sizes]


def _winners(kernel: Shape) -> torch.dtype:
    return torch.uint8 if kernel[0] * kernel[1] <= 255 else torch.int64


# ---- convolution -----------------------------------------------------------------------------------


def _conv(op: str) -> Op:
    """conv2d or conv2d_relu, whose backward passes read no more than x, the weight and y."""
    relu = op == "conv2d_relu"

    def forward(b: Backend, _: bool, x: Tensor, weight: Tensor, bias: Tensor | None, *conv: Any) -> Results:
        if relu:
            return (b.conv2d_relu_forward(x, weight, bias, conv=Conv(*conv), need_saved=False)[0],)
        return (b.conv2d_forward(x, weight, bias, **Conv(*conv)._asdict()),)

    def backward(b: Any, dy: Tensor, saved: Any, _: Shape, conv: Any, need: Any) -> Results:
        if relu:
            gradients: Results = b.conv2d_relu_backward(dy, *saved, conv=Conv(*conv), **_needs(need))
        else:
            gradients = b.conv2d_backward(dy, *saved, **Conv(*conv)._asdict(), **_needs(need))
        return gradients

    return Op(
        name=op, tensors=WEIGHTED, learns=3, attributes=CONV, forward=forward, backward=backward,
        saves=lambda args, results: (*args[:2], *(results if relu else ())),
        results=lambda x, weight, bias, *conv: (_like(x, conv_shape(x, weight, *conv[:3])),),
    )  # fmt: skip


def _conv_pool(op: str) -> Op:
    """A convolution with a max-pool.  Both kinds of its kernel's ``saved`` become one array of winners."""
    relu = op == "conv2d_relu_max_pool2d"

    def forward(
        b: Backend, need_saved: bool, x: Tensor, weight: Tensor, bias: Tensor | None, *attributes: Any
    ) -> Results:
        conv, pool = Conv(*attributes[:4]), Pool(*attributes[4:])
        y, saved = getattr(b, f"{op}_forward")(x, weight, bias, conv=conv, pool=pool, need_saved=need_saved)
        if not need_saved:
            return (y,)
        kind, winners, *_ = saved
        if kind == "composed" and relu:
            winners.masked_fill_(y <= 0, RELU_OFF[winners.dtype])
        return y, winners

    def backward(b: Backend, dy: Tensor, saved: Any, _: Shape, attributes: Any, need: Any) -> Results:
        x, weight, winners = saved
        gradients: Results = getattr(b, f"{op}_backward")(
            dy, x, weight, ("fused", winners), conv=Conv(*attributes[:4]), pool=Pool(*attributes[4:]),
            **_needs(need),
        )  # fmt: skip
        return gradients

    def results(x: Tensor, weight: Tensor, _: Any, *attributes: Any) -> Any:
        shape = _pool_shape(conv_shape(x, weight, *attributes[:3]), *attributes[4:])
        return _like(x, shape), (shape, _winners(attributes[4]))

    return Op(
        name=op, tensors=WEIGHTED, learns=3, attributes=CONV | POOL_AFTER, forward=forward,
        backward=backward, saves=lambda args, results: (*args[:2], results[1]), results=results, extras=1,
    )  # fmt: skip


# ---- pools -----------------------------------------------------------------------------------------


def _max_pool_forward(b: Backend, need_saved: bool, x: Tensor, *pool: Any) -> Results:
    y, argmax = b.max_pool2d_forward(x, **Pool(*pool)._asdict(), need_argmax=need_saved)
    return (y, argmax) if need_saved else (y,)


MAX_POOL = Op(
    name="max_pool2d", tensors=("Tensor x",), learns=1,
    attributes={
        "int[] kernel_size": "[2, 2]", "int[] stride": "[2, 2]", "int[] padding": "[0, 0]",
        "int[] dilation": "[1, 1]", "bool ceil_mode": "False",
    },
    forward=_max_pool_forward,
    backward=lambda b, dy, saved, shape, pool, need: (
        b.max_pool2d_backward(dy, saved[0], input_shape=tuple(shape), **Pool(*pool)._asdict()),
    ),
    saves=lambda args, results: results[1:],
    results=lambda x, *pool: (
        _like(x, _pool_shape(x.shape, *pool)), (_pool_shape(x.shape, *pool), _winners(pool[0]))
    ),
    extras=1,
)  # fmt: skip

AVG_NAMES = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
AVG_POOL = Op(
    name="avg_pool2d", tensors=("Tensor x",), learns=1,
    attributes={
        "int[] kernel_size": "[2, 2]", "int[] stride": "[2, 2]", "int[] padding": "[0, 0]",
        "bool ceil_mode": "False", "bool count_include_pad": "True",
    },
    forward=lambda b, _, x, *pool: (b.avg_pool2d_forward(x, **dict(zip(AVG_NAMES, pool, strict=True))),),
    backward=lambda b, dy, saved, shape, pool, need: (
        b.avg_pool2d_backward(dy, input_shape=tuple(shape), **dict(zip(AVG_NAMES, pool, strict=True))),
    ),
    results=lambda x, kernel, stride, padding, ceil_mode, _: (
        _like(x, _pool_shape(x.shape, kernel, stride, padding, (1, 1), ceil_mode)),
    ),
)  # fmt: skip

ADAPTIVE_AVG_POOL = Op(
    name="adaptive_avg_pool2d", tensors=("Tensor x",), learns=1, attributes={"int[] output_size": "[1, 1]"},
    forward=lambda b, _, x, size: (b.adaptive_avg_pool2d_forward(x, output_size=size),),
    backward=lambda b, dy, saved, shape, attributes, need: (
        b.adaptive_avg_pool2d_backward(dy, input_shape=tuple(shape)),
    ),
    results=lambda x, size: (_like(x, [*x.shape[:2], *size]),),
)  # fmt: skip


# ---- dense, activations, softmax -------------------------------------------------------------------


def _dense(op: str) -> Op:
    relu = op == "dense_relu"

    def forward(b: Backend, _: bool, x: Tensor, weight: Tensor, bias: Tensor | None) -> Results:
        if relu:
            return (b.dense_relu_forward(x, weight, bias, need_saved=False)[0],)
        return (b.dense_forward(x, weight, bias),)

    def backward(b: Backend, dy: Tensor, saved: Any, _: Shape, __: Any, need: Any) -> Results:
        return (b.dense_relu_backward if relu else b.dense_backward)(dy, *saved, **_needs(need))

    return Op(
        name=op, tensors=WEIGHTED, learns=3, forward=forward, backward=backward,
        saves=lambda args, results: (*args[:2], *(results if relu else ())),
        results=lambda x, weight, _: (_like(x, [x.shape[0], weight.shape[0]]),),
    )  # fmt: skip


def _of_its_result(op: str) -> Op:
    """An operation on one array whose gradient follows from y."""
    return Op(
        name=op, tensors=("Tensor x",), learns=1, results=_same_shape, saves=lambda args, results: results,
        forward=lambda b, _, x: (getattr(b, f"{op}_forward")(x),),
        backward=lambda b, dy, saved, *_: (getattr(b, f"{op}_backward")(dy, saved[0]),),
    )  # fmt: skip


DROPOUT = Op(
    name="dropout", tensors=("Tensor x", "Tensor keep_mask"), learns=1, attributes={"float p": "0.5"},
    forward=lambda b, _, x, mask, p: (b.dropout_forward(x, mask, p=p),),
    backward=lambda b, dy, saved, shape, attributes, need: (
        b.dropout_backward(dy, saved[0], p=attributes[0]),
    ),
    saves=lambda args, results: (args[1],), results=_same_shape,
)  # fmt: skip

LOSS = {"float label_smoothing": "0.0", "int ignore_index": "-100", "str reduction": '"mean"'}
LOSS_NAMES = ("label_smoothing", "ignore_index", "reduction")


def _loss_forward(
    b: Backend, need_saved: bool, logits: Tensor, labels: Tensor, weight: Tensor | None, *options: Any
) -> Results:
    results = b.softmax_cross_entropy_forward(
        logits, labels, class_weight=weight, **dict(zip(LOSS_NAMES, options, strict=True))
    )
    return results if need_saved else results[:1]


def _loss_backward(b: Backend, dy: Tensor, saved: Any, _: Shape, options: Any, __: Any) -> Results:
    probs, labels, *weight = saved
    dlogits = b.softmax_cross_entropy_backward(
        probs, labels, class_weight=weight[0] if weight else None,
        **dict(zip(LOSS_NAMES, options, strict=True)),
    )  # fmt: skip
    return (dlogits.mul_(dy.reshape(-1, 1)),)


CROSS_ENTROPY = Op(
    name="softmax_cross_entropy", tensors=("Tensor logits", "Tensor labels", "Tensor? class_weight=None"),
    learns=1, attributes=LOSS, forward=_loss_forward, backward=_loss_backward, extras=1,
    saves=lambda args, results: (results[1], *args[1:3]),
    results=lambda logits, labels, weight, smoothing, ignored, reduction: (
        _like(logits, logits.shape[:1] if reduction == "none" else []), _like(logits)
    ),
)  # fmt: skip


# ---- batch norm ------------------------------------------------------------------------------------


def _norm(op: str) -> Op:
    """Batch norm and what follows it; it gives mean and invstd besides y, and argmax if it pools."""
    pooled, added = op.endswith("max_pool2d"), "add" in op
    relu = op != "batch_norm2d"
    tensors = ("Tensor x", *(("Tensor residual",) if added else ()), *NORMED)

    def forward(b: Backend, need_saved: bool, *args: Any) -> Results:
        arrays, (training, momentum, eps, *window) = args[: len(tensors)], args[len(tensors) :]
        options: dict[str, Any] = {"training": training, "momentum": momentum, "eps": eps}
        if pooled:
            options["pool"] = Pool(*window)
        if not relu:
            y, *saved = b.batch_norm2d_forward(*arrays, **options)
        else:
            y, kept = getattr(b, f"{op}_forward")(*arrays, **options, need_saved=need_saved)
            saved = list(kept[1:]) if kept else []
        return (y, *saved) if need_saved else (y,)

    def backward(b: Backend, dy: Tensor, saved: Any, _: Shape, attributes: Any, need: Any) -> Results:
        x, *kept = saved
        count = 2 + relu + pooled  # mean and invstd, y, argmax; the weight comes last, if there is one
        kept, weight = kept[:count], kept[count] if len(kept) > count else None
        options: dict[str, Any] = {"training": attributes[0]}
        if pooled:
            options["pool"] = Pool(*attributes[3:])
        options |= _needs((need[0], *need[2:]) if added else need)
        if not relu:
            return b.batch_norm2d_backward(dy, x, weight, *kept, **options)
        gradients: Results = getattr(b, f"{op}_backward")(dy, x, weight, tuple(kept), **options)
        return gradients

    def results(x: Tensor, *args: Any) -> Any:
        shape = _pool_shape(x.shape, *args[len(tensors) + 2 :]) if pooled else x.shape
        winners = [(shape, _winners(args[len(tensors) + 2]))] if pooled else []
        statistic = [x.shape[1]], wide(x.dtype)
        return _like(x, shape), *winners, statistic, statistic

    return Op(
        name=op, tensors=tensors, learns=3 + added, attributes=NORM | (POOL_AFTER if pooled else {}),
        forward=forward, backward=backward, results=results, extras=2 + pooled,
        saves=lambda args, results: (args[0], *results[not relu :], args[1 + added]),
    )  # fmt: skip


# ---- joining and reshaping -------------------------------------------------------------------------


def _add(op: str) -> Op:
    relu = op == "add_relu"

    def forward(b: Backend, _: bool, x: Tensor, y: Tensor) -> Results:
        return (b.add_relu_forward(x, y, need_saved=False)[0] if relu else b.add_forward(x, y),)

    def backward(b: Backend, dy: Tensor, saved: Any, *_: Any) -> Results:
        return b.add_relu_backward(dy, saved[0]) if relu else b.add_backward(dy)

    return Op(
        name=op, tensors=("Tensor a", "Tensor b"), learns=2, forward=forward, backward=backward,
        saves=lambda args, results: tuple(results) if relu else (), results=_same_shape,
    )  # fmt: skip


CONCAT = Op(
    name="concat", tensors=("Tensor[] xs",), learns=1, listed=True,
    forward=lambda b, _, *xs: (b.concat_forward(xs),),
    backward=lambda b, dy, saved, sizes, attributes, need: tuple(
        b.concat_backward(dy, sizes=tuple(sizes))
    ),
    results=lambda *xs: (_like(xs[0], [xs[0].shape[0], sum(x.shape[1] for x in xs), *xs[0].shape[2:]]),),
)  # fmt: skip

FLATTEN = Op(
    name="flatten", tensors=("Tensor x",), learns=1,
    forward=lambda b, _, x: (b.flatten_forward(x),),
    backward=lambda b, dy, saved, shape, attributes, need: (
        b.flatten_backward(dy, input_shape=tuple(shape)),
    ),
    results=lambda x: (_like(x, [x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]]),),
)  # fmt: skip

FOLD = Op(
    name="fold_batch_norm2d", learns=0, backward=None, attributes={"float eps": "1e-5"}, extras=1,
    tensors=(
        "Tensor weight", "Tensor? bias", "Tensor? gamma", "Tensor? beta", "Tensor running_mean",
        "Tensor running_var",
    ),
    forward=lambda b, _, *args: b.fold_batch_norm2d(*args[:6], eps=args[6]),
    results=lambda weight, *_: (_like(weight), _like(weight, weight.shape[:1])),
)  # fmt: skip

TABLE: dict[str, Op] = {
    op.name: op
    for op in (
        _conv("conv2d"), _conv("conv2d_relu"),
        _conv_pool("conv2d_max_pool2d"), _conv_pool("conv2d_relu_max_pool2d"),
        _dense("dense"), _dense("dense_relu"),
        MAX_POOL, AVG_POOL, ADAPTIVE_AVG_POOL,
        _of_its_result("relu"), _of_its_result("relu6"), _of_its_result("softmax"), DROPOUT, CROSS_ENTROPY,
        _norm("batch_norm2d"), _norm("batch_norm2d_relu"), _norm("batch_norm2d_add_relu"),
        _norm("batch_norm2d_relu_max_pool2d"),
        _add("add"), _add("add_relu"), CONCAT, FLATTEN, FOLD,
    )
}  # fmt: skip
