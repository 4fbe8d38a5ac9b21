"""What torch.autocast means for each operation: the dtype in which its tensors are given.

Under autocast with bfloat16, convolutions and dense layers take their images as bfloat16, as torch's do;
weights stay float32, and are rounded where they are multiplied.  Softmax and the loss take float32.  Batch
norm, pools, activations, sums and concatenations take what comes, and the widest dtype of several tensors.
Under autocast with float16, in which minicnn computes nothing, all of them take float32.  float64 stays.

Source: "Autocast Op Reference" in PyTorch's manual.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from minicnn.torch.op import Op

ROUNDED = ("conv2d", "dense")
"""How the names of operations begin that take bfloat16 where they are given float32."""
IN_FLOAT32 = ("softmax", "softmax_cross_entropy")
ACTIVATIONS = ("x", "residual", "a", "b", "xs", "logits")
"""The tensors that may be bfloat16; the others are float32 beside them."""


def is_on(device: str) -> bool:
    """Whether torch.autocast is on for a type of device."""
    return torch.is_autocast_enabled(device)


def computes(dtype: torch.dtype, device: str) -> bool:
    """Whether minicnn computes under autocast what torch would, for activations of this dtype."""
    if dtype == torch.float64:
        return True
    return torch.get_autocast_dtype(device) == torch.bfloat16 and dtype in (torch.float32, torch.bfloat16)


def cast(op: Op, args: Sequence[Any], device: str) -> list[Any]:
    """All arguments of an operation, with its tensors in the dtypes that autocast asks for."""
    names = [tensor.split()[1].partition("=")[0] for tensor in op.tensors]
    if op.listed:
        names *= len(args)
    activations = [t for t, name in zip(args, names, strict=False) if name in ACTIVATIONS]
    dtype = _dtype(op, activations, torch.get_autocast_dtype(device))
    return [
        argument if name.startswith("running") else _as(argument, dtype if name in ACTIVATIONS else None)
        for argument, name in zip(args, [*names, *[""] * (len(args) - len(names))], strict=True)
    ]


def _dtype(op: Op, activations: Sequence[Tensor], wanted: torch.dtype) -> torch.dtype:
    """The dtype of the operation's activations."""
    widest = reduce(torch.promote_types, (t.dtype for t in activations))
    if widest == torch.float64:
        return widest
    if op.name in IN_FLOAT32 or torch.float16 in (widest, wanted):
        return torch.float32
    return torch.bfloat16 if op.name.startswith(ROUNDED) else widest


def _as(argument: Any, dtype: torch.dtype | None) -> Any:
    """A floating tensor in the dtype; without one, a tensor of half precision in float32."""
    if not isinstance(argument, Tensor) or not argument.is_floating_point():
        return argument
    if dtype is None:
        dtype = torch.float32 if argument.element_size() == 2 else argument.dtype
    return argument.to(dtype)
