"""What each backend runs for an operation of the contract: a row for each name.

The fused operations that a table does not name are the contract's compositions.
"""

from __future__ import annotations

from typing import Any

from minicnn.backends.base import Backend
from minicnn.ops import (
    adaptive_avg_pool2d,
    add,
    avg_pool2d,
    batch_norm2d,
    cast,
    concat,
    conv2d,
    dense,
    dropout,
    flatten,
    fold_batch_norm2d,
    make_batch,
    max_pool2d,
    optimizers,
    relu,
    relu6,
    softmax,
    softmax_cross_entropy,
)
from minicnn.ops.cast import computed_in_float32


class NumpyTable(Backend):
    """The functions of `minicnn.ops`."""

    conv2d_forward = staticmethod(computed_in_float32(conv2d.conv2d_forward, of="x", factor="weight"))
    conv2d_backward = staticmethod(computed_in_float32(conv2d.conv2d_backward, of="x", factor="weight"))
    max_pool2d_forward = staticmethod(computed_in_float32(max_pool2d.max_pool2d_forward, of="x"))
    max_pool2d_backward = staticmethod(computed_in_float32(max_pool2d.max_pool2d_backward, of="dy"))
    avg_pool2d_forward = staticmethod(computed_in_float32(avg_pool2d.avg_pool2d_forward, of="x"))
    avg_pool2d_backward = staticmethod(computed_in_float32(avg_pool2d.avg_pool2d_backward, of="dy"))
    adaptive_avg_pool2d_forward = staticmethod(
        computed_in_float32(adaptive_avg_pool2d.adaptive_avg_pool2d_forward, of="x")
    )
    adaptive_avg_pool2d_backward = staticmethod(
        computed_in_float32(adaptive_avg_pool2d.adaptive_avg_pool2d_backward, of="dy")
    )
    relu_forward = staticmethod(relu.relu_forward)
    relu_backward = staticmethod(relu.relu_backward)
    relu6_forward = staticmethod(relu6.relu6_forward)
    relu6_backward = staticmethod(relu6.relu6_backward)
    dense_forward = staticmethod(computed_in_float32(dense.dense_forward, of="x", factor="weight"))
    dense_backward = staticmethod(computed_in_float32(dense.dense_backward, of="x", factor="weight"))
    batch_norm2d_forward = staticmethod(computed_in_float32(batch_norm2d.batch_norm2d_forward, of="x"))
    batch_norm2d_backward = staticmethod(computed_in_float32(batch_norm2d.batch_norm2d_backward, of="x"))
    fold_batch_norm2d = staticmethod(fold_batch_norm2d.fold_batch_norm2d)
    dropout_forward = staticmethod(computed_in_float32(dropout.dropout_forward, of="x"))
    dropout_backward = staticmethod(computed_in_float32(dropout.dropout_backward, of="dy"))
    softmax_forward = staticmethod(softmax.softmax_forward)
    softmax_backward = staticmethod(softmax.softmax_backward)
    softmax_cross_entropy_forward = staticmethod(softmax_cross_entropy.softmax_cross_entropy_forward)
    softmax_cross_entropy_backward = staticmethod(softmax_cross_entropy.softmax_cross_entropy_backward)
    add_forward = staticmethod(computed_in_float32(add.add_forward, of="a"))
    add_backward = staticmethod(add.add_backward)
    concat_forward = staticmethod(concat.concat_forward)
    concat_backward = staticmethod(concat.concat_backward)
    flatten_forward = staticmethod(flatten.flatten_forward)
    flatten_backward = staticmethod(flatten.flatten_backward)
    cast_forward = staticmethod(cast.cast_forward)
    cast_backward = staticmethod(cast.cast_backward)
    make_batch = staticmethod(make_batch.make_batch)
    sgd_step = staticmethod(optimizers.sgd_step)
    adam_step = staticmethod(optimizers.adam_step)
    rmsprop_step = staticmethod(optimizers.rmsprop_step)
    ema_update = staticmethod(optimizers.ema_update)
    global_norm = staticmethod(optimizers.global_norm)
    scale = staticmethod(optimizers.scale)


class Compiled:
    """An operation that the backend's compiled module has under the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, backend: CompiledTable | None, owner: type) -> Any:
        return self if backend is None else getattr(backend._module, self._name)


class CompiledTable(Backend):
    """The functions of a compiled module, which has them under the contract's names.

    They have the contract's arguments and defaults too, check their arguments and allocate their results
    (csrc/host).
    """

    _module: Any

    conv2d_forward = Compiled()
    conv2d_backward = Compiled()
    max_pool2d_forward = Compiled()
    max_pool2d_backward = Compiled()
    avg_pool2d_forward = Compiled()
    avg_pool2d_backward = Compiled()
    adaptive_avg_pool2d_forward = Compiled()
    adaptive_avg_pool2d_backward = Compiled()
    relu_forward = Compiled()
    relu_backward = Compiled()
    relu6_forward = Compiled()
    relu6_backward = Compiled()
    dense_forward = Compiled()
    dense_backward = Compiled()
    batch_norm2d_forward = Compiled()
    batch_norm2d_backward = Compiled()
    fold_batch_norm2d = Compiled()
    dropout_forward = Compiled()
    dropout_backward = Compiled()
    softmax_forward = Compiled()
    softmax_backward = Compiled()
    softmax_cross_entropy_forward = Compiled()
    softmax_cross_entropy_backward = Compiled()
    add_forward = Compiled()
    add_backward = Compiled()
    concat_forward = Compiled()
    concat_backward = Compiled()
    flatten_forward = Compiled()
    flatten_backward = Compiled()
    cast_forward = Compiled()
    cast_backward = Compiled()
    make_batch = Compiled()
    sgd_step = Compiled()
    adam_step = Compiled()
    rmsprop_step = Compiled()
    ema_update = Compiled()
    global_norm = Compiled()
    scale = Compiled()

    # ---- fused operations ----------------------------------------------------------------------

    conv2d_relu_forward = Compiled()
    conv2d_relu_backward = Compiled()
    conv2d_max_pool2d_forward = Compiled()
    conv2d_max_pool2d_backward = Compiled()
    conv2d_relu_max_pool2d_forward = Compiled()
    conv2d_relu_max_pool2d_backward = Compiled()
    dense_relu_forward = Compiled()
    dense_relu_backward = Compiled()
    add_relu_forward = Compiled()
    add_relu_backward = Compiled()
    batch_norm2d_relu_forward = Compiled()
    batch_norm2d_relu_backward = Compiled()
    batch_norm2d_add_relu_forward = Compiled()
    batch_norm2d_add_relu_backward = Compiled()
    batch_norm2d_relu_max_pool2d_forward = Compiled()
    batch_norm2d_relu_max_pool2d_backward = Compiled()
