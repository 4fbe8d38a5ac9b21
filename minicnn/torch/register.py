"""torch's operations ``torch.ops.minicnn.*``, made of the rows of `minicnn.torch.operations`.

A row ``conv2d`` becomes three operations of torch's dispatcher:

    conv2d            y, with a gradient
    conv2d_forward    y and what the backward pass needs besides it, without a gradient
    conv2d_backward   the gradients, of dy and of what `Op.saves` chose

Each has kernels for CPU and CUDA, which call the backends cpp and cuda, and a fake one, which gives shapes
alone.  ``conv2d`` also has a kernel for autograd, which runs the other two, and one for autocast, which
casts (`minicnn.torch.autocast`).  `call` is the way in for modules: where nobody watches the dispatcher it
leaves it out.

Sources: torch.library, and "Custom Operators" in PyTorch's tutorials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import Library

from minicnn.backends import Backend, get_backend
from minicnn.backends.cpp_backend import use_torch_threads
from minicnn.shapes import fail
from minicnn.torch import autocast
from minicnn.torch.op import Op, Results
from minicnn.torch.operations import TABLE, wide

LIBRARY: Any = Library("minicnn", "FRAGMENT")  # type: ignore[no-untyped-call]
DEVICES = {"CPU": "cpp", "CUDA": "cuda"}
"""Dispatch key -> the backend whose kernels run there."""
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.AutocastCUDA
)


@cache
def backend_of(name: str) -> Backend:
    """The backend, which shares torch's threads if it computes with any."""
    backend = get_backend(name)
    if name == "cpp":
        use_torch_threads(backend)
    return backend


def _device_backend(device: str) -> Backend:
    return backend_of(DEVICES[device.upper()])


# ---- the three kernels of a row, on a device ---------------------------------------------------------


def _complete(op: Op, args: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments with the defaults that the dispatcher leaves out, and without a list of tensors."""
    if op.listed:
        return tuple(args[0])
    return (*args, *_defaults(op)[len(args) :])


@cache
def _defaults(op: Op) -> tuple[Any, ...]:
    """Of every argument; None where there is none."""
    schema = torch._C.parse_schema(f"f({op.arguments}) -> Tensor")
    return tuple(argument.default_value for argument in schema.arguments)


def _result(op: Op, name: str, *args: Any) -> Any:
    return op.forward(backend_of(name), False, *_complete(op, args))[0]


def _results(op: Op, name: str, *args: Any) -> Any:
    results = op.forward(backend_of(name), True, *_complete(op, args))
    return results if op.extras else results[0]


def _gradients(
    op: Op, name: str, dy: Tensor, saved: list[Tensor], shape: list[int], *attributes: Any
) -> list[Tensor]:
    """The gradients as the dispatcher wants them: no None, no tensor twice, none of the arguments."""
    *options, need = attributes
    assert op.backward is not None
    given = op.backward(backend_of(name), dy, saved, shape, options, need)
    found: list[Tensor] = []
    for gradient in given:
        if gradient is None:
            found.append(dy.new_empty(0))
        elif any(gradient is other for other in (dy, *found)):
            found.append(gradient.clone(memory_format=memory_order(gradient.dim())))
        else:
            found.append(gradient)
    return found


# ---- shapes alone ----------------------------------------------------------------------------------


def _empty(like: Tensor, shape: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """A new tensor in the memory order of the kernels' results."""
    order = memory_order(len(shape))
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=order)


def memory_order(dimensions: int) -> torch.memory_format:
    """The memory order of the kernels' results: images are channels-last."""
    return torch.channels_last if dimensions == 4 else torch.contiguous_format


def _fake_result(op: Op, *args: Any) -> Tensor:
    args = _complete(op, args)
    return _empty(args[0], *op.results(*args)[0])


def _fake_results(op: Op, *args: Any) -> Any:
    args = _complete(op, args)
    results = tuple(_empty(args[0], *result) for result in op.results(*args))
    return results if op.extras else results[0]


def _fake_gradients(
    op: Op, dy: Tensor, saved: list[Tensor], shape: list[Any], *attributes: Any
) -> list[Tensor]:
    *_, need = attributes
    gradients = _gradient_shapes(op, dy, saved, shape, len(need))
    return [
        _empty(dy, *gradient) if wanted else dy.new_empty(0)
        for gradient, wanted in zip(gradients, need, strict=True)
    ]


def _gradient_shapes(
    op: Op, dy: Tensor, saved: list[Tensor], shape: list[Any], count: int
) -> list[tuple[Sequence[Any], torch.dtype]]:
    """Shape and dtype of each gradient."""
    own, parameters = dy.dtype, wide(dy.dtype)
    if op.listed:
        return [((dy.shape[0], size, *dy.shape[2:]), own) for size in shape]
    if "Tensor weight" in op.tensors:
        weight = saved[1].shape
        return [(shape, own), (weight, parameters), (weight[:1], parameters)]
    if op.name.startswith("batch_norm2d"):
        return [(shape, own)] * (count - 2) + [((shape[1],), parameters)] * 2
    return [(shape, own)] * count


# ---- autograd ----------------------------------------------------------------------------------------


class Recorded(torch.autograd.Function):
    """An operation as autograd records it.  ``through`` says how its two directions are run."""

    @staticmethod
    def forward(ctx: Any, op: Op, through: Runner, *args: Any) -> Any:
        _refuse_other_gradients(op, ctx.needs_input_grad[2:])
        x = args[0]
        if x.dim() == 4 and not x.is_contiguous(memory_format=torch.channels_last):
            args = (x.contiguous(memory_format=torch.channels_last), *args[1:])
        results = through.forward(op, args)
        ctx.op, ctx.through = op, through
        if op.listed:
            ctx.shape, ctx.attributes = [x.shape[1] for x in args], ()
        else:
            ctx.shape, ctx.attributes = x.shape, args[op.tensor_count :]
        ctx.save_for_backward(*[t for t in op.saves(args, results) if t is not None])
        return results[0]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _differentiate_once(ctx, dy) if torch.is_grad_enabled() else _differentiate(ctx, dy)


def _refuse_other_gradients(op: Op, wanted: Sequence[bool]) -> None:
    """Refuse a gradient of a tensor that the operation gives none, such as labels."""
    for argument, needed in [*zip(op.tensors, wanted, strict=False)][op.learns :]:
        if needed:
            name = argument.split()[1].partition("=")[0]
            fail(op.name, name, "a tensor without gradient", "requires_grad=True")


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    op, wanted = ctx.op, ctx.needs_input_grad[2:]
    need = wanted if op.listed else wanted[: op.learns]
    gradients = ctx.through.backward(op, dy, ctx.saved_tensors, ctx.shape, ctx.attributes, need)
    found = [g if n else None for g, n in zip(gradients, need, strict=True)]
    return (None, None, *found, *([None] * (len(wanted) - len(need))))


_differentiate_once = once_differentiable(_differentiate)


class Runner:
    """Runs both directions on the device's backend at once."""

    def forward(self, op: Op, args: Sequence[Any]) -> Results:
        return op.forward(_device_backend(args[0].device.type), True, *args)

    def backward(
        self, op: Op, dy: Tensor, saved: Sequence[Tensor], shape: Any, attributes: Any, need: Any
    ) -> Results:
        assert op.backward is not None
        return op.backward(_device_backend(dy.device.type), dy, saved, shape, attributes, need)


class DispatchedRunner(Runner):
    """Runs both directions as operations of the dispatcher, so that whoever traces sees them."""

    def forward(self, op: Op, args: Sequence[Any]) -> Results:
        with torch._C._AutoDispatchBelowAutograd():
            results = _PACKETS[f"{op.name}_forward"](*([list(args)] if op.listed else args))
        return results if isinstance(results, tuple) else (results,)

    def backward(
        self, op: Op, dy: Tensor, saved: Sequence[Tensor], shape: Any, attributes: Any, need: Any
    ) -> Results:
        gradients = _PACKETS[f"{op.name}_backward"](dy, list(saved), list(shape), *attributes, list(need))
        return tuple(gradients)


_DIRECT, _DISPATCHED = Runner(), DispatchedRunner()


def _recorded(op: Op, *args: Any) -> Tensor:
    """The kernel for autograd."""
    args = _complete(op, args)
    y: Tensor = Recorded.apply(op, _DISPATCHED, *args)
    return y


def _cast(op: Op, device: str, *args: Any) -> Tensor:
    """The kernel for autocast."""
    with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
        given = autocast.cast(op, _complete(op, args), device)
        y: Tensor = _PACKETS[op.name](*([given] if op.listed else given))
        return y


def _refuse_vmap(name: str, *_: Any) -> Any:
    raise RuntimeError(f"[minicnn::{name}] torch.vmap is not supported: the first axis is the batch")


def _register(op: Op) -> None:
    results = ", ".join(["Tensor"] * (1 + op.extras))
    kernels: dict[str, tuple[Callable[..., Any], Callable[..., Any]]]
    if op.backward is None:  # without a gradient there is one operation, which gives all results
        kernels = {f"{op.name}({op.arguments}) -> ({results})": (_results, _fake_results)}
    else:
        gradients = f"Tensor dy, Tensor[] saved, SymInt[] shape, {op.plain_attributes}bool[] need"
        kernels = {
            f"{op.name}({op.arguments}) -> Tensor": (_result, _fake_result),
            f"{op.name}_forward({op.arguments}) -> ({results})": (_results, _fake_results),
            f"{op.name}_backward({gradients}) -> Tensor[]": (_gradients, _fake_gradients),
        }
    for schema, (kernel, fake) in kernels.items():
        name = schema.partition("(")[0]
        LIBRARY.define(schema)
        for key, backend in DEVICES.items():
            LIBRARY.impl(name, partial(kernel, op, backend), key)
        torch.library.register_fake(f"minicnn::{name}", partial(fake, op), lib=LIBRARY)
        torch.library.register_vmap(f"minicnn::{name}", partial(_refuse_vmap, name), lib=LIBRARY)
        _PACKETS[name] = getattr(torch.ops.minicnn, name).default
    if op.backward is not None:
        LIBRARY.impl(op.name, partial(_recorded, op), "Autograd")
        for key in DEVICES:
            LIBRARY.impl(op.name, partial(_cast, op, key.lower()), f"Autocast{key}")


_PACKETS: dict[str, Any] = {}
"""Name -> torch's operation; a plain dict, which a compiler reads through."""

for _op in TABLE.values():
    _register(_op)


# ---- the way in for modules ----------------------------------------------------------------------------


def _unwatched() -> bool:
    """Whether nothing has to see operations in the dispatcher: compiler, mode or transform."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._are_functorch_transforms_active()
    )


def call(name: str, *args: Any) -> Tensor:
    """The result y of an operation, all of whose arguments are given, in the order of `TABLE`."""
    op = TABLE[name]
    device = args[0].device.type if type(args[0]) is Tensor else ""
    if _unwatched() and device.upper() in DEVICES:
        if autocast.is_on(device):
            args = (*autocast.cast(op, args, device),)
        if torch.is_grad_enabled():
            y: Tensor = Recorded.apply(op, _DIRECT, *args)
            return y
        return op.forward(_device_backend(device), False, *args)[0]  # type: ignore[no-any-return]
    result: Tensor = _PACKETS[name](*([list(args)] if op.listed else args))
    return result
