"""The case table as arguments of torch's operations, and modules whose forward is a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from minicnn.shapes import is_bfloat16
from minicnn.testing import cases, checks
from minicnn.testing.cases import Case
from minicnn.testing.oracle import Problem

LISTED = ("concat",)
OUTSIDE = ("cast", "make_batch")
"""No operations of torch's dispatcher: torch casts by `Tensor.to`, its users make batches their own way."""

CASES = [case for case in cases.CASES if case.op not in OUTSIDE]
FIRST_OF_EACH_OP = {op: case for op, case in checks.FIRST_OF_EACH_OP.items() if op not in OUTSIDE}


def arguments(problem: Problem, *, learn: bool = True) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """The operation's arguments, and those by name that have a gradient."""
    case = problem.case
    tensors = {name: None if a is None else as_tensor(a) for name, a in problem.inputs.items()}
    learnt = {name: t for name, t in tensors.items() if t is not None and name in learns(case)}
    for tensor in learnt.values():
        tensor.requires_grad_(learn)
    attrs = dict(case.attrs)
    pool = attrs.pop("pool", {})
    given = [list(tensors.values())] if case.op in LISTED else [*tensors.values()]
    return [*given, *attrs.values(), *pool.values()], learnt


def as_tensor(a: np.ndarray) -> torch.Tensor:
    """A copy of an array, of which torch does not read ml_dtypes.bfloat16."""
    if is_bfloat16(a):
        return torch.from_numpy(a.astype(np.float32)).bfloat16()
    return torch.from_numpy(a.copy())


def learns(case: Case) -> list[str]:
    """The inputs that have a gradient."""
    without = {"running_mean", "running_var", "keep_mask", "labels", "class_weight"}
    return [] if case.op == "fold_batch_norm2d" else [name for name in case.inputs if name not in without]


def operation(case: Case) -> Any:
    """torch's operation of a case."""
    return getattr(torch.ops.minicnn, case.op).default


class Written(nn.Module):
    """A forward as text, for images of some channels.

    ``conv``, ``norm``, ``relu`` (in place), ``drop`` and ``same`` (which gives its input) are modules, and
    ``p`` is a parameter with a number for each channel.
    """

    def __init__(self, code: str, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        self.relu, self.drop, self.same = nn.ReLU(inplace=True), nn.Dropout(), nn.Identity()
        self.p = nn.Parameter(torch.linspace(-1, 1, channels).reshape(1, channels, 1, 1))
        names: dict[str, Any] = {"F": F, "torch": torch}
        exec(f"def forward(self, x):\n    {code}", names)
        self.call = names["forward"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.call(self, x)
        return y
