"""How to run each operation on a backend, and the same operation in torch.

Inputs are a dict of arrays by argument name, attributes a dict of keyword arguments.  Running an operation
on a backend gives its outputs by name, the differentiable one first, and its backward pass: a function from
the gradient of that output to the gradients by input name.  The torch function gives the same outputs as
tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from minicnn import shapes
from minicnn.backends.base import Backend, Conv, Pool
from minicnn.testing import batches

Arrays = Mapping[str, Any]
Attrs = Mapping[str, Any]
Outputs = dict[str, Any]
Backward = Callable[..., dict[str, Any]]


class Operation(NamedTuple):
    """How the tests run one operation of the contract."""

    run: Callable[[Backend, Arrays, Attrs], tuple[Outputs, Backward]]
    torch: Callable[[Any, Arrays, Attrs], Outputs]
    terms: Callable[[Arrays, Attrs], int]
    """The number of terms of the longest sum in forward or backward; the tolerance grows with its root."""
    optional_gradients: tuple[str, ...] = ()
    """Inputs whose gradient can be switched off, by need_dx, need_dw and need_db."""
    before_kink: Callable[[Any, Arrays, Attrs], Any] | None = None
    """What a fused operation gives its ReLU or max-pool: near a tie, rounding decides about gradients."""


NEED = {"x": "need_dx", "weight": "need_dw", "bias": "need_db"}
PARAMETRIC = tuple(NEED)


def _named(gradients: Any, *names: str) -> dict[str, Any]:
    return dict(zip(names, gradients, strict=True))


# ---- operations with parameters ------------------------------------------------------------------


def _conv2d(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    x, weight = t["x"], t["weight"]
    y = b.conv2d_forward(x, weight, t["bias"], **a)
    return {"y": y}, lambda dy, **need: _named(b.conv2d_backward(dy, x, weight, **a, **need), *PARAMETRIC)


def _torch_conv2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    x, attrs = _padded(torch, t["x"], a)
    return {"y": torch.nn.functional.conv2d(x, t["weight"], t["bias"], **attrs)}


def _padded(torch: Any, x: Any, a: Attrs, value: float = 0.0) -> tuple[Any, dict[str, Any]]:
    """x and the attributes; x is padded first where the sides differ, as torch pads both alike."""
    if not (isinstance(a["padding"], tuple) and len(a["padding"]) == 4):
        return x, dict(a)
    top, left, bottom, right = a["padding"]
    padded = torch.nn.functional.pad(x, (left, right, top, bottom), value=value)
    return padded, {**a, "padding": (0, 0)}


def _conv2d_terms(t: Arrays, _: Attrs) -> int:
    filters, _, kh, kw = t["weight"].shape
    positions = t["x"].size // t["x"].shape[1]
    return int(max(t["weight"][0].size, filters * kh * kw, positions))


def _dense(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    x, weight = t["x"], t["weight"]
    y = b.dense_forward(x, weight, t["bias"])
    return {"y": y}, lambda dy, **need: _named(b.dense_backward(dy, x, weight, **need), *PARAMETRIC)


def _torch_dense(torch: Any, t: Arrays, _: Attrs) -> Outputs:
    return {"y": torch.nn.functional.linear(t["x"], t["weight"], t["bias"])}


def _dense_terms(t: Arrays, _: Attrs) -> int:
    return int(max(*t["weight"].shape, t["x"].shape[0]))


RUNNING = ("running_mean", "running_var")
"""The only inputs that an operation may change."""


def _batch_norm2d(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    x, weight = t["x"], t["weight"]
    running = {name: t[name] for name in RUNNING}
    y, mean, invstd = b.batch_norm2d_forward(x, weight, t["bias"], **running, **a)

    def backward(dy: Any, **need: bool) -> dict[str, Any]:
        gradients = b.batch_norm2d_backward(dy, x, weight, mean, invstd, training=a["training"], **need)
        return _named(gradients, *PARAMETRIC)

    return {"y": y, "mean": mean, "invstd": invstd, **running}, backward


def _torch_batch_norm2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    running = {name: None if t[name] is None else t[name].detach().clone() for name in RUNNING}
    y = torch.nn.functional.batch_norm(t["x"], **running, weight=t["weight"], bias=t["bias"], **a)
    if a["training"]:
        mean = t["x"].mean((0, 2, 3))
        var = (t["x"] - mean[:, None, None]).square().mean((0, 2, 3))
    else:
        mean, var = t["running_mean"], t["running_var"]
    return {"y": y, "mean": mean, "invstd": torch.rsqrt(var + a["eps"]), **running}


def _batch_norm2d_terms(t: Arrays, _: Attrs) -> int:
    return int(max(1, t["x"].size // t["x"].shape[1]))


def _fold_batch_norm2d(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    weight, bias = b.fold_batch_norm2d(**t, **a)
    return {"weight": weight, "bias": bias}, lambda _: {}


def _torch_fold_batch_norm2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    weight, bias = torch.nn.utils.fuse_conv_bn_weights(
        t["weight"], t["bias"], t["running_mean"], t["running_var"], a["eps"], t["gamma"], t["beta"]
    )
    return {"weight": weight, "bias": bias}


# ---- pools -----------------------------------------------------------------------------------------


def _max_pool2d(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    y, argmax = b.max_pool2d_forward(t["x"], **a)
    shape = tuple(t["x"].shape)
    return {"y": y}, lambda dy: {"x": b.max_pool2d_backward(dy, argmax, input_shape=shape, **a)}


def _torch_max_pool2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    return {"y": _torch_max_pool(torch, t["x"], a)}


def _torch_max_pool(torch: Any, x: Any, a: Attrs) -> Any:
    padded, attrs = _padded(torch, x, a, -math.inf)
    return _windows_that_count(torch.nn.functional.max_pool2d(padded, **attrs), x, a)


def _windows_that_count(y: Any, x: Any, a: Attrs) -> Any:
    """Without windows that begin in the padding after x, which torch takes for a part of a padded x."""
    if len(a["padding"]) == 2:
        return y
    dilation = a.get("dilation", (1, 1))
    window = (a["kernel_size"], a["stride"], a["padding"], dilation, a["ceil_mode"])
    oh, ow = shapes.pool2d("pool", x.shape, *window)
    return y[:, :, :oh, :ow]


def _avg_pool2d(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    y = b.avg_pool2d_forward(t["x"], **a)
    shape = tuple(t["x"].shape)
    return {"y": y}, lambda dy: {"x": b.avg_pool2d_backward(dy, input_shape=shape, **a)}


def _torch_avg_pool2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    pool, x = torch.nn.functional.avg_pool2d, t["x"]
    padded, attrs = _padded(torch, x, a)
    y = pool(padded, **attrs)
    if padded is not x and not a["count_include_pad"]:
        y = y / pool(_padded(torch, torch.ones_like(x), a)[0], **attrs)
    return {"y": _windows_that_count(y, x, a)}


def _window_terms(_: Arrays, a: Attrs) -> int:
    kh, kw = a["kernel_size"]
    return int(kh * kw)


def _adaptive_avg_pool2d(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    y = b.adaptive_avg_pool2d_forward(t["x"], **a)
    shape = tuple(t["x"].shape)
    return {"y": y}, lambda dy: {"x": b.adaptive_avg_pool2d_backward(dy, input_shape=shape)}


def _torch_adaptive_avg_pool2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    return {"y": torch.nn.functional.adaptive_avg_pool2d(t["x"], **a)}


def _adaptive_terms(t: Arrays, a: Attrs) -> int:
    (h, w), (oh, ow) = t["x"].shape[2:], a["output_size"]
    return int(max(h * w, oh * ow))


# ---- element by element, and joining ---------------------------------------------------------------


def _relu(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    y = b.relu_forward(t["x"])
    return {"y": y}, lambda dy: {"x": b.relu_backward(dy, y)}


def _torch_relu(torch: Any, t: Arrays, _: Attrs) -> Outputs:
    return {"y": torch.nn.functional.relu(t["x"])}


def _relu6(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    y = b.relu6_forward(t["x"])
    return {"y": y}, lambda dy: {"x": b.relu6_backward(dy, y)}


def _torch_relu6(torch: Any, t: Arrays, _: Attrs) -> Outputs:
    return {"y": torch.nn.functional.relu6(t["x"])}


def _dropout(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    y = b.dropout_forward(t["x"], t["keep_mask"], **a)
    return {"y": y}, lambda dy: {"x": b.dropout_backward(dy, t["keep_mask"], **a)}


def _torch_dropout(_: Any, t: Arrays, a: Attrs) -> Outputs:
    factor = 0.0 if a["p"] == 1 else 1 / (1 - a["p"])
    return {"y": t["x"] * t["keep_mask"] * factor}


def _add(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    return {"y": b.add_forward(t["a"], t["b"])}, lambda dy: _named(b.add_backward(dy), "a", "b")


def _add_relu(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    y, saved = b.add_relu_forward(t["a"], t["b"])
    return {"y": y}, lambda dy: _named(b.add_relu_backward(dy, saved), "a", "b")


def _torch_add(_: Any, t: Arrays, __: Attrs) -> Outputs:
    return {"y": t["a"] + t["b"]}


def _cast(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    y = b.cast_forward(t["x"], **a)
    name = str(t["x"].dtype).removeprefix("torch.")
    return {"y": y}, lambda dy: {"x": b.cast_backward(dy, input_dtype=name)}


def _torch_cast(_: Any, t: Arrays, __: Attrs) -> Outputs:
    return {"y": 1 * t["x"]}


def _concat(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    sizes = [x.shape[1] for x in t.values()]
    y = b.concat_forward(list(t.values()))
    return {"y": y}, lambda dy: _named(b.concat_backward(dy, sizes=sizes), *t)


def _torch_concat(torch: Any, t: Arrays, _: Attrs) -> Outputs:
    return {"y": torch.cat(list(t.values()), 1)}


def _flatten(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    shape = tuple(t["x"].shape)
    return {"y": b.flatten_forward(t["x"])}, lambda dy: {"x": b.flatten_backward(dy, input_shape=shape)}


def _torch_flatten(_: Any, t: Arrays, __: Attrs) -> Outputs:
    return {"y": t["x"].flatten(1)}


def _rounded_once(_: Arrays, __: Attrs) -> int:
    return 1


def _moved_only(_: Arrays, __: Attrs) -> int:
    return 0


# ---- softmax and the loss --------------------------------------------------------------------------


def _softmax(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    p = b.softmax_forward(t["x"])
    return {"p": p}, lambda dy: {"x": b.softmax_backward(dy, p)}


def _torch_softmax(torch: Any, t: Arrays, _: Attrs) -> Outputs:
    return {"p": torch.softmax(t["x"], 1)}


def _softmax_cross_entropy(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
    labels, weight = t["labels"], t["class_weight"]
    loss, probs = b.softmax_cross_entropy_forward(t["logits"], labels, class_weight=weight, **a)

    def backward(dy: Any) -> dict[str, Any]:
        dlogits = b.softmax_cross_entropy_backward(probs, labels, class_weight=weight, **a)
        # without a reduction, each row is the gradient of that row's loss
        return {"logits": dlogits * dy.reshape(-1, 1) if a.get("reduction") == "none" else dlogits}

    return {"loss": loss, "probs": probs}, backward


def _torch_softmax_cross_entropy(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    logits = t["logits"]
    weight = None if t["class_weight"] is None else t["class_weight"].detach()
    loss = torch.nn.functional.cross_entropy(logits, t["labels"], weight=weight, **a)
    return {"loss": loss, "probs": torch.softmax(logits, 1)}


def _loss_terms(t: Arrays, _: Attrs) -> int:
    return int(max(t["logits"].shape))


# ---- fused operations: a smooth part, then ReLU and max-pool ---------------------------------------


def _conv_attrs(a: Attrs) -> dict[str, Any]:
    return {name: a[name] for name in Conv._fields}


def _pool_attrs(a: Attrs) -> dict[str, Any]:
    """The pool's attributes, which a case has as one dict under "pool"."""
    return {"pool": Pool(**a["pool"])} if "pool" in a else {}


def _fused_conv2d(op: str) -> Callable[[Backend, Arrays, Attrs], tuple[Outputs, Backward]]:
    def run(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
        x, weight = t["x"], t["weight"]
        attrs = {"conv": Conv(**_conv_attrs(a)), **_pool_attrs(a)}
        y, saved = getattr(b, f"{op}_forward")(x, weight, t["bias"], **attrs)

        def backward(dy: Any, **need: bool) -> dict[str, Any]:
            gradients = getattr(b, f"{op}_backward")(dy, x, weight, saved, **attrs, **need)
            return _named(gradients, *PARAMETRIC)

        return {"y": y}, backward

    return run


def _dense_relu(b: Backend, t: Arrays, _: Attrs) -> tuple[Outputs, Backward]:
    x, weight = t["x"], t["weight"]
    y, saved = b.dense_relu_forward(x, weight, t["bias"])
    return {"y": y}, lambda dy, **need: _named(
        b.dense_relu_backward(dy, x, weight, saved, **need), *PARAMETRIC
    )


def _fused_batch_norm2d(op: str) -> Callable[[Backend, Arrays, Attrs], tuple[Outputs, Backward]]:
    def run(b: Backend, t: Arrays, a: Attrs) -> tuple[Outputs, Backward]:
        x, weight = t["x"], t["weight"]
        running = {name: t[name] for name in RUNNING}
        residual = {"residual": t["residual"]} if "residual" in t else {}
        pool = _pool_attrs(a)
        norm = {name: a[name] for name in ("training", "momentum", "eps")}
        forward = getattr(b, f"{op}_forward")
        y, saved = forward(x, **residual, weight=weight, bias=t["bias"], **running, **norm, **pool)

        def backward(dy: Any, **need: bool) -> dict[str, Any]:
            training = a["training"]
            gradients = getattr(b, f"{op}_backward")(
                dy, x, weight, saved, training=training, **pool, **need
            )
            return _named(gradients, "x", *residual, "weight", "bias")

        return {"y": y, **running}, backward

    return run


def _smooth_conv2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    return _torch_conv2d(torch, t, _conv_attrs(a))


def _smooth_batch_norm2d(torch: Any, t: Arrays, a: Attrs) -> Outputs:
    norm = {name: a[name] for name in ("training", "momentum", "eps")}
    outputs = _torch_batch_norm2d(torch, t, norm)
    z = outputs["y"] + t["residual"] if "residual" in t else outputs["y"]
    return {"y": z, **{name: outputs[name] for name in RUNNING}}


def _fused(
    run: Callable[[Backend, Arrays, Attrs], tuple[Outputs, Backward]],
    smooth: Callable[[Any, Arrays, Attrs], Outputs],
    terms: Callable[[Arrays, Attrs], int],
    *,
    relu: bool = True,
    optional_gradients: tuple[str, ...] = PARAMETRIC,
) -> Operation:
    def in_torch(torch: Any, t: Arrays, a: Attrs) -> Outputs:
        outputs = smooth(torch, t, a)
        z = torch.relu(outputs["y"]) if relu else outputs["y"]
        if "pool" in a:
            z = _torch_max_pool(torch, z, a["pool"])
        return {**outputs, "y": z}

    def before_kink(torch: Any, t: Arrays, a: Attrs) -> Any:
        return smooth(torch, t, a)["y"]

    return Operation(run, in_torch, terms, optional_gradients, before_kink)


OPERATIONS: dict[str, Operation] = {
    "conv2d": Operation(_conv2d, _torch_conv2d, _conv2d_terms, PARAMETRIC),
    "max_pool2d": Operation(_max_pool2d, _torch_max_pool2d, _window_terms),
    "avg_pool2d": Operation(_avg_pool2d, _torch_avg_pool2d, _window_terms),
    "adaptive_avg_pool2d": Operation(_adaptive_avg_pool2d, _torch_adaptive_avg_pool2d, _adaptive_terms),
    "relu": Operation(_relu, _torch_relu, _moved_only),
    "relu6": Operation(_relu6, _torch_relu6, _moved_only),
    "dense": Operation(_dense, _torch_dense, _dense_terms, PARAMETRIC),
    "batch_norm2d": Operation(_batch_norm2d, _torch_batch_norm2d, _batch_norm2d_terms, PARAMETRIC),
    "fold_batch_norm2d": Operation(_fold_batch_norm2d, _torch_fold_batch_norm2d, _rounded_once),
    "dropout": Operation(_dropout, _torch_dropout, _rounded_once),
    "softmax": Operation(_softmax, _torch_softmax, lambda t, _: int(t["x"].shape[1])),
    "softmax_cross_entropy": Operation(_softmax_cross_entropy, _torch_softmax_cross_entropy, _loss_terms),
    "add": Operation(_add, _torch_add, _rounded_once),
    "cast": Operation(_cast, _torch_cast, _moved_only),
    "concat": Operation(_concat, _torch_concat, _moved_only),
    "flatten": Operation(_flatten, _torch_flatten, _moved_only),
    "make_batch": Operation(batches.run, batches.run_torch, _rounded_once),
    "conv2d_relu": _fused(_fused_conv2d("conv2d_relu"), _smooth_conv2d, _conv2d_terms),
    "conv2d_max_pool2d": _fused(
        _fused_conv2d("conv2d_max_pool2d"), _smooth_conv2d, _conv2d_terms, relu=False
    ),
    "conv2d_relu_max_pool2d": _fused(
        _fused_conv2d("conv2d_relu_max_pool2d"), _smooth_conv2d, _conv2d_terms
    ),
    "add_relu": _fused(_add_relu, _torch_add, _rounded_once, optional_gradients=()),
    "dense_relu": _fused(_dense_relu, _torch_dense, _dense_terms),
    "batch_norm2d_relu": _fused(
        _fused_batch_norm2d("batch_norm2d_relu"), _smooth_batch_norm2d, _batch_norm2d_terms
    ),
    "batch_norm2d_add_relu": _fused(
        _fused_batch_norm2d("batch_norm2d_add_relu"), _smooth_batch_norm2d, _batch_norm2d_terms
    ),
    "batch_norm2d_relu_max_pool2d": _fused(
        _fused_batch_norm2d("batch_norm2d_relu_max_pool2d"), _smooth_batch_norm2d, _batch_norm2d_terms
    ),
}
