"""`accelerate`: a torch.nn module computes with minicnn's operations where they are faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from minicnn.torch.calls import DTYPES
from minicnn.torch.parts import MODULES, unsupported
from minicnn.torch.replacement import Alone, Forward, Replacement
from minicnn.torch.report import Report, Row
from minicnn.torch.steps import Step, Timing
from minicnn.torch.timing import fastest, nothing_kept, once, set_modes, time_step
from minicnn.torch.tracing import Untraceable

Module = TypeVar("Module", bound=nn.Module)
KEPT = "minicnn_report"
"""The attribute of an accelerated module that holds the report."""
MODES = {True: "training", False: "evaluation"}


def accelerate(module: Module, *example: Any, choose: str = "faster") -> Module:
    """Let a torch.nn module run minicnn's operations, fused ones where neighbours allow it.

    The module itself is changed and returned.  Classes, parameters, names, hooks and modes stay as they
    are; only ``forward`` of the modules that hold others is another.  Weights of convolutions become
    channels-last in memory.  `report` tells what was replaced, what was left, and why; `restore` undoes
    everything.

    Args:    module: on the CPU or an NVIDIA GPU; operations in float32 and float64 are replaced
             example: what the module is called with, images of the usual batch size.  Both directions are
                 timed on it, for each operation and for the whole; buffers, gradients and random numbers
                 are left as they were.  Forward hooks see these calls
             choose: "faster" replaces what is faster for the example, and nothing if the whole is not;
                 "all" replaces everything that can be, and needs no example
    Returns: the module
    Raises:  ValueError if the example is missing or ``choose`` is another word
    """
    if choose not in ("faster", "all"):
        raise ValueError(f"[accelerate] choose: expected 'faster' or 'all', got {choose!r}")
    if not isinstance(module, nn.Module):
        raise ValueError(f"[accelerate] module: expected a torch.nn.Module, got {type(module).__name__}")
    if choose == "faster" and not example:
        raise ValueError("[accelerate] example: expected what the module is called with, got nothing")
    inner = module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
    restore(inner)
    left = _replace(inner)
    if choose == "all":
        _arrange_weights(inner)
        _keep_report(inner, left, {}, "everything that can be is replaced")
        return module
    with nothing_kept(inner):
        _choose(inner, example, left)
    return module


def restore(module: Module) -> Module:
    """Undo `accelerate`: every module has its own forward, and weights their memory order again."""
    for part in module.modules():
        kept = vars(part).get("forward")
        if isinstance(kept, Replacement | Alone):
            del vars(part)["forward"]
        rows = vars(part).pop(KEPT, None)
        if rows is not None:
            _rearrange_weights(part)
    return module


def report(module: nn.Module) -> Report:
    """What `accelerate` did with the module, to be printed.  Raises ValueError if it is not accelerated."""
    for part in module.modules():
        if KEPT in vars(part):
            found: Report = vars(part)[KEPT]
            return found
    raise ValueError("[report] module: expected an accelerated one, got one that is not")


# ---- what can be replaced ----------------------------------------------------------------------------


def _replace(module: nn.Module) -> list[Row]:
    """Give every module that holds others a forward with steps; rows for those that cannot have one."""
    left = []
    for name, part in module.named_modules():
        if type(part) in MODULES or "forward" in vars(part):
            if "forward" in vars(part) and not isinstance(vars(part)["forward"], Replacement | Alone):
                left.append(
                    Row(name or "the module", "", "", False, "its forward was replaced already", None)
                )
            continue
        if type(part).forward is nn.Module.forward or not (part._modules or _is_custom(part)):
            continue
        try:
            replacement = Replacement(part)
        except Untraceable as reason:
            left.append(Row(name or "the module", "", "", False, str(reason), None))
            _replace_children(part)
            continue
        if any(True for _ in replacement.steps()):
            vars(part)["forward"] = replacement
    if type(module) in MODULES and unsupported(module) is None:
        vars(module)["forward"] = Alone(module)
    return left


def _is_custom(module: nn.Module) -> bool:
    return not type(module).__module__.startswith("torch.")


def _replace_children(module: nn.Module) -> None:
    """Replace the children of a module that cannot be traced, each alone."""
    for child in module.children():
        alone = type(child) in MODULES and type(child) is not nn.ReLU and "forward" not in vars(child)
        if alone and unsupported(child) is None:
            vars(child)["forward"] = Alone(child)


def forwards(module: nn.Module) -> Iterator[tuple[str, nn.Module, Forward]]:
    """The name, the module and the replacement of every accelerated module in this one."""
    for name, part in module.named_modules():
        kept = vars(part).get("forward")
        if isinstance(kept, Replacement | Alone):
            yield name, part, kept


def _steps(module: nn.Module) -> list[tuple[str, bool | None, Step]]:
    """The name, mode (None: both) and step of all steps."""
    return [
        (", ".join(f"{name}.{own}".strip(".") for own in names.split(", ")),
         None if isinstance(forward, Alone) else mode, step)
        for name, _, forward in forwards(module)
        for mode, names, step in forward.steps()
    ]  # fmt: skip


# ---- what is replaced --------------------------------------------------------------------------------


def _choose(module: nn.Module, example: tuple[Any, ...], left: list[Row]) -> None:
    """Switch on the steps that are faster for the example, or restore the module if it is not faster."""
    modes = {part: part.training for part in module.modules()}
    steps = _steps(module)
    learnt = [p for p in module.parameters() if p.requires_grad]
    _switch(steps, lambda *_: False)
    _record(module, example, steps, modes)
    _arrange_weights(module)
    for _, mode, step in steps:
        for gradients in (True, False) if mode is None else (mode,):
            if step.values and step.possible(step.values, step.arguments):
                set_modes(module, modes, gradients)
                step.timings[gradients] = time_step(step, gradients)
    _switch(steps, lambda step, g: g in step.timings and step.timings[g].step < step.timings[g].modules)
    chosen = [dict(step.on) for _, _, step in steps]

    def variant(on: Any, gradients: bool) -> Any:
        def call() -> None:
            for (_, _, step), choice in zip(steps, on, strict=True):
                step.on = choice
            once(lambda: module(*example), learnt, gradients)

        return call

    nothing = [{True: False, False: False} for _ in steps]
    everything = [{g: g in step.timings for g in (True, False)} for _, _, step in steps]
    whole, best = {}, [dict(on) for on in nothing]
    cuda = any(p.is_cuda for p in module.parameters())
    for gradients, name in MODES.items():
        set_modes(module, modes, gradients)
        times = fastest([variant(on, gradients) for on in (nothing, chosen, everything)], cuda=cuda)
        taken = min((chosen, times[1]), (everything, times[2]), key=lambda pair: pair[1])
        if taken[1] < times[0]:
            whole[name] = Timing(times[0], taken[1])
            for mine, theirs in zip(best, taken[0], strict=True):
                mine[gradients] = theirs[gradients]
    for (_, _, step), choice in zip(steps, best, strict=True):
        step.on = choice
    rows = _rows(steps, whole)
    _drop_idle(module)
    verdict = (
        "faster as a whole" if whole else "nothing is replaced: the whole is not faster on the example"
    )
    if not whole:
        restore(module)
    vars(module)[KEPT] = Report((*rows, *left), whole, verdict)


def _switch(steps: list[tuple[str, bool | None, Step]], on: Any) -> None:
    for _, _, step in steps:
        step.on = {gradients: on(step, gradients) for gradients in (True, False)}


def _record(
    module: nn.Module, example: tuple[Any, ...], steps: list[tuple[str, bool | None, Step]],
    modes: dict[nn.Module, bool],
) -> None:  # fmt: skip
    """Call the module in both modes, so that every step sees its values."""
    for _, _, step in steps:
        step.recording = True
    try:
        for gradients in (False, True):
            set_modes(module, modes, gradients)
            with torch.set_grad_enabled(gradients):
                module(*example)
    finally:
        for _, _, step in steps:
            step.recording = False


def _rows(steps: list[tuple[str, bool | None, Step]], whole: dict[str, Timing]) -> list[Row]:
    rows = []
    for name, mode, step in steps:
        for gradients in (True, False) if mode is None else (mode,):
            timing = step.timings.get(gradients)
            if timing is None:
                why = (
                    "the example does not get there"
                    if not step.values
                    else "of a dtype or device minicnn has not"
                )
            else:
                why = f"{timing.modules:.3g} ms in torch, {timing.step:.3g} ms in minicnn"
            if timing is not None and not step.on[gradients] and MODES[gradients] not in whole:
                why += "; the whole is not faster"
            rows.append(Row(name, MODES[gradients], step.label, step.on[gradients], why, timing))
        step.values, step.arguments = (), ()
    return rows


def _drop_idle(module: nn.Module) -> None:
    """Give modules of which no step is on their own forward again."""
    for _, part, forward in list(forwards(module)):
        if not any(on for _, _, step in forward.steps() for on in step.on.values()):
            del vars(part)["forward"]


def _keep_report(module: nn.Module, left: list[Row], whole: dict[str, Timing], verdict: str) -> None:
    rows = [
        Row(name, MODES[mode is not False], step.label, True, "", None)
        for name, mode, step in _steps(module)
    ]
    vars(module)[KEPT] = Report((*rows, *left), whole, verdict)


# ---- memory order ------------------------------------------------------------------------------------


def _arrange_weights(module: nn.Module) -> None:
    """Let the weights of convolutions that steps run be channels-last, as their kernels read them."""
    for weight in _weights(module):
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _rearrange_weights(module: nn.Module) -> None:
    for weight in _weights(module):
        weight.data = weight.data.contiguous()


def _weights(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        weight = part._parameters.get("weight")
        if type(part) is nn.Conv2d and weight is not None and weight.dtype in DTYPES:
            yield weight
