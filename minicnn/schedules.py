"""Learning-rate schedules: pure functions of the step number, so a resumed run needs no state.

A schedule is a function from the number of a step, 0 for the first, to the learning rate of that step.  A
step is one batch.  Every one can be copied and pickled, as a `Trainer` that has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """The same rate at every step."""
    return partial(_constant, lr=lr)


def step(lr: float, *, every: int, gamma: float = 0.1) -> Schedule:
    """lr * gamma^(k // every) at step k: after ``every`` steps the rate is multiplied by ``gamma``.

    Torch:  torch.optim.lr_scheduler.StepLR
    Raises: ValueError if ``every`` is below 1
    """
    if every < 1:
        raise ValueError(f"[step] every: expected at least 1 step, got {every}")
    return partial(_step, lr=lr, every=every, gamma=gamma)


def cosine(lr: float, total_steps: int, *, final: float = 0.0) -> Schedule:
    """Half a cosine, from lr at step 0 down to ``final`` at step ``total_steps``, and ``final`` thereafter.

    Torch:  torch.optim.lr_scheduler.CosineAnnealingLR
    Source: Loshchilov and Hutter 2016, arXiv:1608.03983
    """
    return partial(_cosine, lr=lr, total_steps=total_steps, final=final)


def onecycle(
    lr: float, total_steps: int, *, warmup: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
) -> Schedule:
    """Up from lr/start_factor to lr, then down to lr/(start_factor*end_factor), along half a cosine each.

    ``warmup`` is the share of the steps in which the rate rises.

    Torch:  torch.optim.lr_scheduler.OneCycleLR with cycle_momentum=False
    Source: Smith and Topin 2017, arXiv:1708.07120
    """
    start, end = lr / start_factor, lr / (start_factor * end_factor)
    return partial(
        _onecycle, start=start, lr=lr, end=end, peak=warmup * total_steps - 1, total_steps=total_steps
    )


def with_warmup(schedule: Schedule, steps: int) -> Schedule:
    """The schedule multiplied by a factor that rises linearly to 1 in the first ``steps`` steps."""
    return partial(_warmed_up, schedule=schedule, steps=steps) if steps else schedule


NAMES = ("constant", "step", "cosine", "onecycle")


def create(
    name: str, *, lr: float, total_steps: int, warmup: float | None = None, every: int | None = None,
    gamma: float = 0.1,
) -> Schedule:  # fmt: skip
    """The schedule of this name for a run of ``total_steps`` steps with greatest rate ``lr``.

    ``warmup`` is the share of the steps in which the rate rises: 0.3 by default for onecycle, 0 for
    the others.  ``every`` (default: a third of the steps) and ``gamma`` are those of `step`.

    Raises: ValueError naming the argument that is wrong and what was expected
    """
    if total_steps < 1:
        raise ValueError(f"[schedule] total_steps: expected at least 1, got {total_steps}")
    if warmup is not None and not 0 <= warmup < 1:
        raise ValueError(f"[schedule] warmup: expected a share from 0 to below 1, got {warmup}")
    if name == "onecycle":
        return onecycle(lr, total_steps, warmup=0.3 if warmup is None else warmup)
    rising = round((warmup or 0) * total_steps)
    if name == "constant":
        return with_warmup(constant(lr), rising)
    if name == "step":
        return with_warmup(step(lr, every=every or math.ceil(total_steps / 3), gamma=gamma), rising)
    if name == "cosine":
        return with_warmup(cosine(lr, total_steps), rising)
    raise ValueError(f"[schedule] name: expected one of {', '.join(NAMES)}, got {name}")


def _constant(k: int, *, lr: float) -> float:  # noqa: ARG001 - the same at every step
    return lr


def _step(k: int, *, lr: float, every: int, gamma: float) -> float:
    return lr * gamma ** (k // every)


def _cosine(k: int, *, lr: float, total_steps: int, final: float) -> float:
    return final + (lr - final) * (1 + math.cos(math.pi * min(k, total_steps) / total_steps)) / 2


def _onecycle(k: int, *, start: float, lr: float, end: float, peak: float, total_steps: int) -> float:
    if k <= peak:
        return _cosine_between(start, lr, k / peak if peak > 0 else 1.0)
    return _cosine_between(lr, end, min(1.0, (k - peak) / max(total_steps - 1 - peak, 1e-12)))


def _warmed_up(k: int, *, schedule: Schedule, steps: int) -> float:
    return schedule(k) * min(1.0, (k + 1) / (steps + 1))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
