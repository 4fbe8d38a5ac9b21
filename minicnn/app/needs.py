"""Whether a run fits into memory, told before anything is allocated for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from minicnn import distributed, memory, models
from minicnn.app.prediction import images_of_a_batch
from minicnn.app.settings import Config
from minicnn.data.decode import Plan
from minicnn.layers import Sequential
from minicnn.memory import NotEnoughMemory, shown, training_memory

_FLOAT = 4
_STATES = {"adam": 2, "adamw": 2, "rmsprop": 1}
"""How many numbers for each weight an optimizer keeps; with momentum, sgd and rmsprop keep one more."""


class Needs(NamedTuple):
    """Bytes that a process of a run takes at least."""

    images: int
    """All decoded images, where they are in memory."""
    model: int
    """Weights, gradients, the rows in which those of shards are added, optimizer's state and averages."""
    batch: int
    """What is kept of a batch for the backward pass, or the images that are tested at once."""

    @property
    def total(self) -> int:
        return sum(self)

    def __str__(self) -> str:
        return (
            f"{shown(self.images)} for images, {shown(self.model)} for weights, gradients and optimizer, "
            f"{shown(self.batch)} for a batch"
        )


def check_needs(config: Config, plan: Plan) -> None:
    """Refuse a run that takes more memory than there is.

    A card's memory is not looked at, since only its driver knows what it has left: there, only the images
    count.

    Raises: NotEnoughMemory telling how much it would take, and which --batch-size or --image-size fits;
            ValueError if the model takes no such images
    """
    available = memory.available_memory()
    needs = needs_of(config, plan)
    processes = distributed.on_this_machine()
    if available is None or needs is None or processes * needs.total <= available:
        return
    size = "x".join(map(str, plan.shape))
    remedies = " or ".join(_remedies(config, plan, available // processes))
    each = f"; that in each of the {processes} processes on this machine" if processes > 1 else ""
    raise NotEnoughMemory(
        f"training {config.model} on {plan.images:,} images of {size}, {config.batch_size} at a time, "
        f"needs {shown(processes * needs.total)} of memory ({needs}{each}), and {shown(available)} are "
        "available; "
        f"{f'{remedies} would do' if remedies else '--limit-train N takes fewer images'}"
    )


def needs_of(config: Config, plan: Plan) -> Needs | None:
    """What a process of a run takes; None where that cannot be said."""
    model = _model(config, plan)
    if model is None:
        return None
    if config.backend == "cuda":
        return Needs(plan.memory, 0, 0)
    weights = _FLOAT * sum(math.prod(array.shape) for array in model.state_shapes().values())
    copies = _STATES.get(config.optimizer, 0) + bool(config.momentum) + bool(config.ema)
    tested = images_of_a_batch(plan.shape)
    batch = _FLOAT * min(tested, plan.images) * math.prod(plan.shape)
    if config.freeze:  # layers are frozen only once they have weights, and keep nothing then
        return Needs(plan.memory, weights, batch)
    parts, rows = _shards(config)
    images = math.ceil(min(config.batch_size, plan.images) / parts)
    step = training_memory(model, plan.shape, images, config.precision)
    without = training_memory(model, plan.shape, 0)
    return Needs(plan.memory, without + (copies + rows) * weights, max(batch, step - without))


def _shards(config: Config) -> tuple[int, int]:
    """Of how many parts of a batch a process keeps one for the backward pass; how many rows it adds in."""
    processes = distributed.current().size
    if config.shards == 1:
        return 1, 0
    rows = (config.shards // processes).bit_length() + (
        processes > 1
    )  # those of the tree, and the received
    return processes if config.sync_batch_norm else config.shards, rows


def _model(config: Config, plan: Plan) -> Sequential | None:
    """The model, without memory for its weights; None if it takes no such images."""
    channels, height, width = plan.shape
    try:
        return models.build(
            config.model, in_channels=channels, num_classes=plan.classes, image_size=(height, width)
        )
    except ValueError:  # making it will tell why
        return None


def _remedies(config: Config, plan: Plan, available: int) -> Iterator[str]:
    """Settings, each of which suffices: the largest batch and the largest images."""

    def fits_batch(size: int) -> bool:
        needs = needs_of(replace(config, batch_size=size), plan)
        return needs is not None and needs.total <= available

    def fits_side(side: int) -> bool:
        needs = needs_of(config, _scaled(plan, side))
        return needs is not None and needs.total <= available

    if batch := _largest(config.batch_size, fits_batch):
        yield f"--batch-size {batch}"
    if side := _largest(max(plan.shape[1:]), fits_side):
        yield f"--image-size {side}"


def _scaled(plan: Plan, side: int) -> Plan:
    """The plan with square images of this side."""
    shape = (plan.shape[0], side, side)
    return plan._replace(shape=shape, memory=plan.memory * math.prod(shape) // math.prod(plan.shape))


def _largest(below: int, fits: Callable[[int], bool]) -> int:
    """The largest of below/2, below/4 and so on that fits; 0 if none does."""
    while below := below // 2:
        if fits(below):
            return below
    return 0
