"""Timing steps and whole modules on an example, without a trace left in the module."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minicnn.torch.steps import Step, Timing

LEAST_ROUNDS = 2
MOST_ROUNDS = 40
SECONDS = 0.05
"""A comparison ends after this time for each side and `LEAST_ROUNDS` rounds, or after `MOST_ROUNDS`."""


@contextmanager
def nothing_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards buffers, random numbers and modes are as they were."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    modes = [(part, part.training) for part in module.modules()]
    devices = [d for d in {p.device for p in module.parameters()} if d.type == "cuda"]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)


def set_modes(module: nn.Module, modes: dict[nn.Module, bool], training: bool) -> None:
    """The modes as they are now, or those of evaluation."""
    for part in module.modules():
        part.training = modes[part] if training else False


def fastest(sides: Sequence[Callable[[], object]], *, cuda: bool = False) -> list[float]:
    """Milliseconds of the fastest call of each side; the sides take turns."""
    best = [float("inf")] * len(sides)
    end = time.perf_counter() + SECONDS * len(sides)
    for done in range(MOST_ROUNDS):
        for i, side in enumerate(sides):
            start = time.perf_counter()
            side()
            if cuda:
                torch.cuda.synchronize()
            if done:  # the first round warms up
                best[i] = min(best[i], (time.perf_counter() - start) * 1e3)
        if done >= LEAST_ROUNDS and time.perf_counter() > end:
            break
    return best


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of floating numbers in a result, whatever holds them."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors_in(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors_in(v)]
    return [t for v in vars(value).values() for t in tensors_in(v)] if hasattr(value, "__dict__") else []


def once(call: Callable[[], Any], learnt: Sequence[Tensor], gradients: bool) -> None:
    """One forward pass, and one backward pass to ``learnt`` if there are gradients; no .grad is touched.

    Under autocast the weights are cast anew each time, as in each step of a training.
    """
    torch.clear_autocast_cache()
    with torch.set_grad_enabled(gradients):
        results = [t for t in tensors_in(call()) if t.requires_grad] if gradients else call()
    if gradients and results and learnt:
        upstream = [torch.ones_like(t) for t in results]
        torch.autograd.grad(results, learnt, upstream, allow_unused=True)


def time_step(step: Step, gradients: bool) -> Timing:
    """The step and its modules on values like those of the last recorded call."""
    values = [_like(value, gradients) for value in step.values]
    modules = step.arguments
    learnt = [v for v in values if v.requires_grad]
    if gradients:
        learnt += [p for m in modules for p in m.parameters(recurse=False) if p.requires_grad]
    was, step.on = step.on, {True: False, False: False}
    try:
        modules_ms, step_ms = fastest(
            [
                lambda: once(lambda: step.plain(values, modules), learnt, gradients),
                lambda: once(lambda: step.fast(values, modules), learnt, gradients),
            ],
            cuda=values[0].is_cuda,
        )
    finally:
        step.on = was
    return Timing(modules_ms, step_ms)


def _like(value: Tensor, gradients: bool) -> Tensor:
    """Random numbers in the shape of a value, channels-last as they are between minicnn's operations."""
    order = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    made = torch.randn_like(value.detach(), memory_format=order)
    return made.requires_grad_(gradients and value.requires_grad)
