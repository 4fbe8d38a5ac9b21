"""`accelerate`: a torch.nn module computes with minicnn's operations where they are faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from minicnn.torch import autocast
from minicnn.torch.calls import DTYPES
from minicnn.torch.parts import ACTIVATIONS, MODULES, unsupported
from minicnn.torch.replacement import Alone, Forward, Replacement
from minicnn.torch.report import Report, Row
from minicnn.torch.steps import Step, Timing
from minicnn.torch.timing import fastest, nothing_kept, once, set_modes, time_step
from minicnn.torch.tracing import Untraceable

Module = TypeVar("Module", bound=nn.Module)
KEPT = "minicnn_report"
"""The attribute of an accelerated module that holds the report."""
ARRANGED = "minicnn_arranged"
"""The attribute that holds the weights whose memory order changed, each with its shape and old strides."""
Choice = Sequence[dict[bool, bool]]
"""For each step, whether it is on with gradients (True) and without (False)."""
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
    Raises:  ValueError if the example is missing or ``choose`` is another word; what the module raises for
             the example, and then nothing is replaced
    """
    if choose not in ("faster", "all"):
        raise ValueError(f"[accelerate] choose: expected 'faster' or 'all', got {choose!r}")
    if not isinstance(module, nn.Module):
        raise ValueError(f"[accelerate] module: expected a torch.nn.Module, got {type(module).__name__}")
    if choose == "faster" and not example:
        raise ValueError("[accelerate] example: expected what the module is called with, got nothing")
    inner = module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
    restore(inner)
    try:
        if choose == "all":
            left = _replace(inner)
            if _steps(inner):
                _arrange_weights(inner)
            _keep_report(inner, left)
        else:
            with nothing_kept(inner):
                _choose(inner, example)
    except BaseException:
        restore(inner)
        raise
    return module


def restore(module: Module) -> Module:
    """Undo `accelerate`: every module has its own forward, and weights their memory order again."""
    for part in module.modules():
        kept = vars(part).get("forward")
        if isinstance(kept, Replacement | Alone):
            del vars(part)["forward"]
        vars(part).pop(KEPT, None)
        for weight, shape, strides in vars(part).pop(ARRANGED, ()):
            if weight.shape == shape:
                order = torch.empty_strided(shape, strides, dtype=weight.dtype, device=weight.device)
                weight.data = order.copy_(weight.data)
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
            for child in part.children():
                _replace_alone(child)
            continue
        if any(True for _ in replacement.steps()):
            vars(part)["forward"] = replacement
    _replace_alone(module)
    return left


def _is_custom(module: nn.Module) -> bool:
    return not type(module).__module__.startswith("torch.")


def _replace_alone(module: nn.Module) -> None:
    """Replace the forward of one of torch's layers, unless its owner has done so."""
    alone = type(module) in MODULES.keys() - {*ACTIVATIONS} and "forward" not in vars(module)
    if alone and unsupported(module) is None:
        vars(module)["forward"] = Alone(module)


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


def _choose(module: nn.Module, example: tuple[Any, ...]) -> None:
    """Switch on the steps that are faster for the example, or restore the module if it is not faster."""
    modes = {part: part.training for part in module.modules()}
    learnt = [p for p in module.parameters() if p.requires_grad]
    cuda = any(p.is_cuda for p in module.parameters())
    steps: list[tuple[str, bool | None, Step]] = []

    def times(choices: Sequence[Choice], gradients: bool) -> list[float]:
        def variant(choice: Choice) -> Callable[[], None]:
            def call() -> None:
                _switch(steps, choice)
                once(lambda: module(*example), learnt, gradients)

            return call

        set_modes(module, modes, gradients)
        return fastest([variant(choice) for choice in choices], cuda=cuda)

    as_it_was = {gradients: times([()], gradients)[0] for gradients in MODES}
    left = _replace(module)
    steps += _steps(module)
    for _, _, step in steps:
        step.autocast = autocast.is_on("cuda" if cuda else "cpu")
    nothing: Choice = [{True: False, False: False} for _ in steps]
    _switch(steps, nothing)
    _record(module, example, steps, modes)
    _arrange_weights(module)
    _time_steps(module, steps, modes)
    everything: Choice = [{g: g in step.timings for g in MODES} for _, _, step in steps]
    chosen: Choice = [
        {g: on[g] and step.timings[g].step < step.timings[g].modules for g in MODES}
        for on, (_, _, step) in zip(everything, steps, strict=True)
    ]
    whole, best = {}, [dict(on) for on in nothing]
    for gradients, name in MODES.items():
        variants = [c for c in (chosen, everything) if any(on[gradients] for on in c)]
        before, *after = times([nothing, *variants], gradients)
        before = min(before, as_it_was[gradients])
        if after and min(after) < before:
            whole[name] = Timing(before, min(after))
            for mine, theirs in zip(best, variants[after.index(min(after))], strict=True):
                mine[gradients] = theirs[gradients]
    _switch(steps, best)
    rows = _rows(steps, whole)
    _drop_idle(module)
    if not whole:
        restore(module)
    verdict = (
        "faster as a whole" if whole else "nothing is replaced: the whole is not faster on the example"
    )
    vars(module)[KEPT] = Report((*rows, *left), whole, verdict)


def _switch(steps: list[tuple[str, bool | None, Step]], choice: Choice) -> None:
    for (_, _, step), on in zip(steps, choice, strict=True):
        step.on = dict(on)


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


def _time_steps(
    module: nn.Module, steps: list[tuple[str, bool | None, Step]], modes: dict[nn.Module, bool]
) -> None:
    """Time every step that minicnn can run on the values that it saw."""
    for _, mode, step in steps:
        for gradients in (True, False) if mode is None else (mode,):
            if step.values and step.possible(step.values, step.arguments):
                set_modes(module, modes, gradients)
                step.timings[gradients] = time_step(step, gradients)


def _rows(steps: list[tuple[str, bool | None, Step]], whole: dict[str, Timing]) -> list[Row]:
    rows = []
    for name, mode, step in steps:
        for gradients in (True, False) if mode is None else (mode,):
            timing = step.timings.get(gradients)
            if timing is None:
                why = (
                    "the example does not get there" if not step.values else "minicnn cannot run this call"
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


def _keep_report(module: nn.Module, left: list[Row]) -> None:
    rows = [
        Row(name, MODES[mode is not False], step.label, True, "", None)
        for name, mode, step in _steps(module)
    ]
    verdict = "everything that can be is replaced" if rows else "nothing can be replaced"
    vars(module)[KEPT] = Report((*rows, *left), {}, verdict)


# ---- memory order ------------------------------------------------------------------------------------


def _arrange_weights(module: nn.Module) -> None:
    """Let the weights of convolutions be channels-last, as minicnn's kernels read them.

    Each that was not is kept in the module with its strides, where copies of the module have theirs.
    """
    arranged: list[tuple[nn.Parameter, torch.Size, tuple[int, ...]]] = []
    vars(module)[ARRANGED] = arranged
    for part in module.modules():
        weight = part._parameters.get("weight")
        if type(part) is not nn.Conv2d or weight is None or weight.dtype not in DTYPES:
            continue
        if torch.ops.aten.is_non_overlapping_and_dense(weight):
            strides = weight.stride()
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
            if weight.stride() != strides:
                arranged.append((weight, weight.shape, strides))
