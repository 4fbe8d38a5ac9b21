"""The contract: the primitives, and the fused operations that are composed of them.

What a fused operation computes is defined here, by a composition of primitives.  A backend that has a
kernel for it overrides its forward and its backward, always both.  The composition can still be called
on such a backend, as ``Backend.conv2d_relu_forward(backend, ...)``; tests compare the kernel with it.

A fused forward returns ``y, saved``.  Only the matching backward may look into ``saved``.  It is None
if ``need_saved`` is false, in evaluation.

``saved`` should be what this call's forward pass saved.  What another call saved is refused with a
ValueError where its kind, shapes or dtypes are wrong.  Where they are right, the gradients mean nothing,
but nothing outside the arrays is read or written, and all backends give the same: a max-pool's winner that
is not a cell of its window, or lies outside the image, passes no gradient on.  The same holds for
``argmax`` of max_pool2d and ``keep_mask`` of dropout.

A fused ReLU or max-pool selects among the values that the composition would store.  So where the sums of a
convolution, a dense layer, a batch norm or an addition are denormal, and cpp counts them as zero (see
`minicnn.backends.primitives`), its fused operations select among zeros, too.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, Self

from minicnn import shapes
from minicnn.backends.primitives import Array, Pair, Primitives
from minicnn.shapes import Padding


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and is not available; the message says why and what to do."""


class Conv(NamedTuple):
    """The attributes of a convolution inside a fused operation."""

    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int


class Pool(NamedTuple):
    """The attributes of a max-pool inside a fused operation."""

    kernel_size: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    ceil_mode: bool


Gradients = tuple[Array | None, Array | None, Array | None]


def parts_of(saved: Any, count: int, op: str) -> tuple[Any, ...]:
    """``saved``, if it is a tuple of this many, as the forward pass saved it; else ValueError."""
    if not isinstance(saved, tuple):
        shapes.fail(
            op, "saved", "what the forward pass saved", "None" if saved is None else type(saved).__name__
        )
    if len(saved) != count:
        shapes.fail(op, "saved", "what the forward pass saved", "another tuple")
    return saved


class Backend(Primitives):
    """The table of operations: a method for each operation's name.

    A copy of a backend is the backend itself, and a pickled one becomes that of the process which reads it.
    So models and trainers can be copied and pickled on every backend.
    """

    @classmethod
    @cache
    def _shared(cls) -> Self:
        """The one backend of this class that the process uses; made the first time."""
        return cls()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._shared, ()

    # ---- convolution and what follows it ------------------------------------------------------

    def conv2d_relu_forward(
        self, x: Array, weight: Array, bias: Array | None, *, conv: Conv, need_saved: bool = True
    ) -> tuple[Array, Any]:
        """relu(conv2d(x))."""
        shapes.flags("conv2d_relu", need_saved=need_saved)
        y = self.relu_forward(self.conv2d_forward(x, weight, bias, **conv._asdict()))
        return y, y if need_saved else None

    def conv2d_relu_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *, conv: Conv,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        """Gradients (dx, dw, db) of conv2d_relu."""
        shapes.flags("conv2d_relu_backward", need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        return self.conv2d_backward(
            self.relu_backward(dy, saved), x, weight, **conv._asdict(),
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip

    def conv2d_max_pool2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *, conv: Conv, pool: Pool,
        need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        """max_pool2d(conv2d(x))."""
        shapes.flags("conv2d_max_pool2d", need_saved=need_saved)
        full = self.conv2d_forward(x, weight, bias, **conv._asdict())
        y, argmax = self.max_pool2d_forward(full, **pool._asdict(), need_argmax=need_saved)
        return y, (argmax,) if need_saved else None

    def conv2d_max_pool2d_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *, conv: Conv, pool: Pool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        """Gradients (dx, dw, db) of conv2d_max_pool2d."""
        shapes.flags("conv2d_max_pool2d_backward", need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        (argmax,) = parts_of(saved, 1, "conv2d_max_pool2d_backward")
        shape = shapes.conv2d_map("conv2d_backward", x, weight, *conv[:3])
        dfull = self.max_pool2d_backward(dy, argmax, input_shape=shape, **pool._asdict())
        return self.conv2d_backward(
            dfull, x, weight, **conv._asdict(), need_dx=need_dx, need_dw=need_dw, need_db=need_db
        )

    def conv2d_relu_max_pool2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *, conv: Conv, pool: Pool,
        need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        """max_pool2d(relu(conv2d(x))).

        It is composed in the other order, with ReLU after the pool, where fewer values are left.  The
        result is the same, because the maximum of ReLUs is the ReLU of the maximum.  So are the
        gradients, because a window whose maximum is not positive passes none in either order.
        """
        shapes.flags("conv2d_relu_max_pool2d", need_saved=need_saved)
        pooled, saved = self.conv2d_max_pool2d_forward(
            x, weight, bias, conv=conv, pool=pool, need_saved=need_saved
        )
        y = self.relu_forward(pooled)
        return y, (y, saved) if need_saved else None

    def conv2d_relu_max_pool2d_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *, conv: Conv, pool: Pool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        """Gradients (dx, dw, db) of conv2d_relu_max_pool2d."""
        shapes.flags("conv2d_relu_max_pool2d_backward", need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        y, winners = parts_of(saved, 2, "conv2d_relu_max_pool2d_backward")
        return self.conv2d_max_pool2d_backward(
            self.relu_backward(dy, y), x, weight, winners, conv=conv, pool=pool,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip

    # ---- dense -----------------------------------------------------------------------------------

    def dense_relu_forward(
        self, x: Array, weight: Array, bias: Array | None, *, need_saved: bool = True
    ) -> tuple[Array, Any]:
        """relu(dense(x))."""
        shapes.flags("dense_relu", need_saved=need_saved)
        y = self.relu_forward(self.dense_forward(x, weight, bias))
        return y, y if need_saved else None

    def dense_relu_backward(
        self, dy: Array, x: Array, weight: Array, saved: Any, *,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        """Gradients (dx, dw, db) of dense_relu."""
        shapes.flags("dense_relu_backward", need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        return self.dense_backward(
            self.relu_backward(dy, saved), x, weight,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip

    # ---- add -------------------------------------------------------------------------------------

    def add_relu_forward(self, a: Array, b: Array, *, need_saved: bool = True) -> tuple[Array, Any]:
        """relu(a + b), of equal shapes."""
        shapes.flags("add_relu", need_saved=need_saved)
        y = self.relu_forward(self.add_forward(a, b))
        return y, y if need_saved else None

    def add_relu_backward(self, dy: Array, saved: Any) -> tuple[Array, Array]:
        """Gradients (da, db) of add_relu."""
        return self.add_backward(self.relu_backward(dy, saved))

    # ---- batch norm and what follows it ---------------------------------------------------------

    def batch_norm2d_relu_forward(
        self, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float, need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        """relu(batch_norm2d(x))."""
        shapes.flags("batch_norm2d_relu", training=training, need_saved=need_saved)
        z, mean, invstd = self.batch_norm2d_forward(
            x, weight, bias, running_mean, running_var, training=training, momentum=momentum, eps=eps
        )
        y = self.relu_forward(z)
        return y, (y, mean, invstd) if need_saved else None

    def batch_norm2d_relu_backward(
        self, dy: Array, x: Array, weight: Array | None, saved: Any, *, training: bool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        """Gradients (dx, dw, db) of batch_norm2d_relu."""
        shapes.flags(
            "batch_norm2d_relu_backward", training=training,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip
        y, mean, invstd = parts_of(saved, 3, "batch_norm2d_relu_backward")
        return self.batch_norm2d_backward(
            self.relu_backward(dy, y), x, weight, mean, invstd, training=training,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip

    def batch_norm2d_add_relu_forward(
        self, x: Array, residual: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float, need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        """relu(batch_norm2d(x) + residual)."""
        shapes.flags("batch_norm2d_add_relu", training=training, need_saved=need_saved)
        z, mean, invstd = self.batch_norm2d_forward(
            x, weight, bias, running_mean, running_var, training=training, momentum=momentum, eps=eps
        )
        y = self.relu_forward(self.add_forward(z, residual))
        return y, (y, mean, invstd) if need_saved else None

    def batch_norm2d_add_relu_backward(
        self, dy: Array, x: Array, weight: Array | None, saved: Any, *, training: bool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array, Array | None, Array | None]:  # fmt: skip
        """Gradients (dx, dresidual, dw, db) of batch_norm2d_add_relu."""
        shapes.flags(
            "batch_norm2d_add_relu_backward", training=training,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip
        y, mean, invstd = parts_of(saved, 3, "batch_norm2d_add_relu_backward")
        dz, dresidual = self.add_backward(self.relu_backward(dy, y))
        dx, dw, db = self.batch_norm2d_backward(
            dz, x, weight, mean, invstd, training=training,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip
        return dx, dresidual, dw, db

    def batch_norm2d_relu_max_pool2d_forward(
        self, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float, pool: Pool, need_saved: bool = True,
    ) -> tuple[Array, Any]:  # fmt: skip
        """max_pool2d(relu(batch_norm2d(x)))."""
        shapes.flags("batch_norm2d_relu_max_pool2d", training=training, need_saved=need_saved)
        z, mean, invstd = self.batch_norm2d_forward(
            x, weight, bias, running_mean, running_var, training=training, momentum=momentum, eps=eps
        )
        pooled, argmax = self.max_pool2d_forward(z, **pool._asdict(), need_argmax=need_saved)
        y = self.relu_forward(pooled)
        return y, (y, argmax, mean, invstd) if need_saved else None

    def batch_norm2d_relu_max_pool2d_backward(
        self, dy: Array, x: Array, weight: Array | None, saved: Any, *, training: bool, pool: Pool,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> Gradients:  # fmt: skip
        """Gradients (dx, dw, db) of batch_norm2d_relu_max_pool2d."""
        shapes.flags(
            "batch_norm2d_relu_max_pool2d_backward", training=training,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip
        y, argmax, mean, invstd = parts_of(saved, 4, "batch_norm2d_relu_max_pool2d_backward")
        dz = self.max_pool2d_backward(
            self.relu_backward(dy, y), argmax, input_shape=tuple(x.shape), **pool._asdict()
        )
        return self.batch_norm2d_backward(
            dz, x, weight, mean, invstd, training=training,
            need_dx=need_dx, need_dw=need_dw, need_db=need_db,
        )  # fmt: skip
