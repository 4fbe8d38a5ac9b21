"""A step: neighbouring operations of a forward that minicnn can run as one.

`TRAINING` and `EVALUATION` say which neighbours those are.  A step stands in the code of an
accelerated module (`minicnn.torch.plan`) and gets the values and the modules at each call, so parameters,
attributes and modes are always the present ones.  It runs the modules themselves, one after another, where
minicnn cannot or should not: other dtypes and devices, torch.func's transforms, modules with hooks, a step
that is off, or one that was timed without autocast and is called under it, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minicnn.graph.fold_batch_norm import FOLDING
from minicnn.graph.fuse import PATTERNS as FUSED
from minicnn.torch import autocast, calls
from minicnn.torch.operations import wide
from minicnn.torch.register import call

Ops = tuple[str, ...]
Run = Callable[[str, Sequence[Tensor], Sequence[Any]], Tensor]

SINGLE = ("conv2d", "dense", "batch_norm2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "concat")
TRAINING: dict[Ops, str] = {
    **{pattern: op for op, pattern in FUSED.items()},
    # The maximum of ReLUs is the ReLU of the maximum.
    ("conv2d", "max_pool2d", "relu"): "conv2d_relu_max_pool2d",
    ("batch_norm2d", "max_pool2d", "relu"): "batch_norm2d_relu_max_pool2d",
    **{(op,): op for op in SINGLE},
}
"""Operations of neighbours -> the operation that does the same."""

EVALUATION: dict[Ops, str] = TRAINING | {
    ("conv2d", *ops): op for ops, op in TRAINING.items() if ops[0] == "batch_norm2d"
}
"""The same in evaluation, where a batch norm after a convolution is folded into it."""

AFTER_FOLDING = {
    "batch_norm2d": "conv2d",
    "batch_norm2d_relu": "conv2d_relu",
    "batch_norm2d_relu_max_pool2d": "conv2d_relu_max_pool2d",
    "batch_norm2d_add_relu": "conv2d",
}
"""What a convolution runs as once the batch norm is part of it; an addition comes after it."""


class Timing(NamedTuple):
    """Milliseconds of torch's modules and of the step, for the example's shapes."""

    modules: float
    step: float


class Step:
    """Runs its operations as ``op`` where ``on`` says so: with gradients (True) and without (False)."""

    def __init__(
        self, ops: Ops, op: str, modules: Sequence[nn.Module | None], given: Sequence[bool]
    ) -> None:
        self.ops, self.op = ops, op
        self.modules = tuple(None if own else module for module, own in zip(modules, given, strict=True))
        """The modules that stand for calls of functions; the others are arguments of each call."""
        self.given = tuple(given)
        self.kinds = tuple(type(module) for module, own in zip(modules, given, strict=True) if own)
        self.on = {True: True, False: True}
        self.timings: dict[bool, Timing] = {}
        self.autocast: bool | None = None
        """Whether it was timed under autocast, and is on there alone; None: it is on anywhere."""
        self.recording = False
        self.__name__ = self.__module__ = ""  # what torch.fx writes into code; the plan gives them
        self.values: tuple[Tensor, ...] = ()
        self.arguments: tuple[Any, ...] = ()
        self._run: Run = _RUNS[ops[0]] if ops[:2] != ("conv2d", "batch_norm2d") else _run_folded
        self._dimensions = 2 if ops[0] == "dense" else 4

    @property
    def label(self) -> str:
        """The operation as a reader knows it."""
        if self.ops[:2] != ("conv2d", "batch_norm2d"):
            return self.op
        added = ", add_relu" if "add" in self.ops else ""
        return f"{AFTER_FOLDING[self.op]} (batch norm folded){added}"

    def __call__(self, values: Sequence[Tensor], *modules: Any) -> Tensor:
        if self.recording:
            self.values, self.arguments = tuple(values), modules
        if self.on[torch.is_grad_enabled()] and self.possible(values, modules):
            return self.fast(values, modules)
        return self.plain(values, modules)

    def fast(self, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
        """minicnn's operation."""
        return self._run(self.op, values, self._complete(modules))

    def plain(self, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
        """The modules themselves, one after another."""
        if self.ops[0] == "concat":
            return torch.cat(list(values), 1)
        y, *others = values
        for op, module in zip(self.ops, self._complete(modules), strict=True):
            y = y + others.pop(0) if op == "add" else module(y)
        return y

    def possible(self, values: Sequence[Tensor], modules: Sequence[Any]) -> bool:
        """Whether minicnn can run this call."""
        x = values[0]
        dtype, device = x.dtype, x.device
        under_autocast = autocast.is_on(device.type)
        if self.autocast not in (None, under_autocast) or _transformed():
            return False
        if not (autocast.computes(dtype, device.type) if under_autocast else dtype in calls.DTYPES):
            return False
        if x.dim() != self._dimensions or not calls.has_backend(device.type):
            return False
        for other in values[1:]:
            if other.dtype != dtype or other.device != device or other.dim() != 4:
                return False
        parameters = wide(dtype)
        if not all(
            _ordinary(module, kind, parameters, device)
            for module, kind in zip(modules, self.kinds, strict=True)
        ):
            return False
        return "add" not in self.ops or self._adds_equal_shapes(x, values[1], modules)

    def _adds_equal_shapes(self, x: Tensor, residual: Tensor, modules: Sequence[Any]) -> bool:
        """Whether nothing is broadcast in the addition of the step."""
        shape = calls.convolved_shape(x, modules[0]) if self.ops[0] == "conv2d" else x.shape
        return tuple(shape) == tuple(residual.shape)

    def _complete(self, modules: Sequence[Any]) -> Sequence[Any]:
        """The modules of all operations, with those that stand for functions in their places."""
        if all(self.given):
            return modules
        rest = iter(modules)
        return [next(rest) if own else module for module, own in zip(self.modules, self.given, strict=True)]


def _transformed() -> bool:
    """Whether torch.vmap, torch.func.grad or the like is at work; a compiler's graph has none."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _ordinary(module: nn.Module, kind: type, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the module is what was traced, with nothing hooked to it, and its weights are like this."""
    if type(module) is not kind or module._forward_hooks or module._forward_pre_hooks:
        return False
    if module._backward_hooks or module._backward_pre_hooks:
        return False
    for tensor in (module._parameters.get("weight"), module._buffers.get("running_mean")):
        if tensor is not None and (tensor.dtype != dtype or tensor.device != device):
            return False
    return "weight" in module._parameters or kind not in (nn.Conv2d, nn.Linear)


# ---- how each kind of step runs --------------------------------------------------------------------------


def _max_pool_of(modules: Sequence[Any]) -> Any:
    return next((module for module in modules if isinstance(module, nn.MaxPool2d)), None)


def _run_conv(op: str, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
    return calls.convolve(op, values[0], modules[0], _max_pool_of(modules))


def _run_norm(op: str, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
    residual = values[1] if len(values) > 1 else None
    return calls.normalize(op, values[0], modules[0], residual=residual, pool=_max_pool_of(modules))


def _run_folded(op: str, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
    """A convolution and what a batch norm begins; two operations where folding is wrong or costs more."""
    conv, *others = modules
    norm, x = others[0], values[0]
    if not _folds(conv, norm, x):
        z = calls.convolve("conv2d", x, conv)
        return _run_norm(op, (z, *values[1:]), others)
    y = calls.convolve_folded(AFTER_FOLDING[op], x, conv, norm, _max_pool_of(others))
    return call("add_relu", y, values[1]) if len(values) > 1 else y


def _folds(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> bool:
    weight = conv._parameters["weight"]
    assert weight is not None
    if norm.training or norm._buffers["running_mean"] is None:
        return False
    if torch.is_grad_enabled():
        learnt = (x, weight, conv._parameters["bias"], *norm._parameters.values())
        if any(tensor is not None and tensor.requires_grad for tensor in learnt):
            return False
    pixels = x.shape[0] * x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])
    return pixels * conv.out_channels >= FOLDING * weight.numel()


def _run_dense(op: str, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
    return calls.dense(op, values[0], modules[0])


def _run_pool(op: str, values: Sequence[Tensor], modules: Sequence[Any]) -> Tensor:
    return _POOLS[op](values[0], modules[0])


def _run_values(op: str, values: Sequence[Tensor], _: Sequence[Any]) -> Tensor:
    return call(op, *values)


_POOLS: dict[str, Callable[..., Tensor]] = {
    "max_pool2d": calls.max_pool,
    "avg_pool2d": calls.avg_pool,
    "adaptive_avg_pool2d": calls.adaptive_avg_pool,
}
_RUNS: dict[str, Run] = {
    "conv2d": _run_conv,
    "batch_norm2d": _run_norm,
    "dense": _run_dense,
    **dict.fromkeys(_POOLS, _run_pool),
    "add": _run_values,
    "concat": _run_values,
}
"""First operation of a step -> how it runs.  A saved module names these functions, so none is a lambda."""
