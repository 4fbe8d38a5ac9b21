"""hard_swish for PyTorch: the kernel is C++, and what torch must know besides it stands here."""

from typing import Any

import torch
from torch import Tensor

from my_extension import _C  # noqa: F401 - registers torch.ops.my_extension


@torch.library.register_fake("my_extension::hard_swish")
def _(x: Tensor) -> Tensor:
    """The shape, dtype and memory order of the result, for whoever traces."""
    dense = torch.ops.aten.is_non_overlapping_and_dense(x)
    return torch.empty_like(x if dense else x.contiguous())


@torch.library.register_fake("my_extension::hard_swish_backward")
def _(dy: Tensor, x: Tensor) -> Tensor:  # noqa: ARG001 - the gradient's shape is x's
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG001 - torch gives it
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    dx: Tensor = torch.ops.my_extension.hard_swish_backward(dy, x)
    return dx


torch.library.register_autograd("my_extension::hard_swish", _backward, setup_context=_save)


def hard_swish(x: Tensor) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6, element by element, in float32 or float64.  Torch: F.hardswish."""
    y: Tensor = torch.ops.my_extension.hard_swish(x)
    return y
