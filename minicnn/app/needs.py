"""Whether a run fits into memory, told before anything is allocated for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from minicnn import distributed, memory, models
from minicnn.app.prediction import images_of_a_batch
from minicnn.app.settings import Config
from minicnn.data import Dataset
from minicnn.data.decode import Plan
from minicnn.layers import Sequential
from minicnn.memory import NotEnoughMemory, shown, training_memory

MACHINE, CARD = "memory", "the card's memory"

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
        told = {
            "images": self.images,
            "weights, gradients and optimizer": self.model,
            "a batch": self.batch,
        }
        return ", ".join(f"{shown(size)} for {what}" for what, size in told.items() if size)


class _Demand(NamedTuple):
    """What all processes that share a memory take of it, and what is there."""

    memory: str
    needs: Needs
    processes: int
    available: int

    @property
    def total(self) -> int:
        return self.processes * self.needs.total

    @property
    def fits(self) -> bool:
        return self.total <= self.available


def check_needs(config: Config, plan: Plan) -> None:
    """Refuse a run that takes more memory than there is: the machine's, or a card's.

    Raises: NotEnoughMemory telling how much it would take, and which --batch-size or --image-size fits;
            ValueError if the model takes no such images
    """
    available = _available(config)
    lacking = next((demand for demand in _demands(config, plan, available) if not demand.fits), None)
    if lacking is None:
        return
    size = "x".join(map(str, plan.shape))
    remedies = " or ".join(_remedies(config, plan, available))
    fewer = "--limit-train N takes fewer images" if lacking.needs.images else "a smaller --model takes less"
    several = f"; that in each of the {lacking.processes} processes on this machine"
    raise NotEnoughMemory(
        f"training {config.model} on {plan.images:,} images of {size}, {config.batch_size} at a time, "
        f"needs {shown(lacking.total)} of {lacking.memory} ({lacking.needs}"
        f"{several if lacking.processes > 1 else ''}), and {shown(lacking.available)} are available; "
        f"{f'{remedies} would do' if remedies else fewer}"
    )


def memory_of_a_step(config: Config, dataset: Dataset) -> int:
    """Bytes that weights, gradients, optimizer and a batch of a run over this dataset take at least."""
    plan = Plan(len(dataset.train), dataset.train.shape, len(dataset.class_names), memory=0)
    needs = needs_of(config, plan)
    return needs.total if needs else 0


def _available(config: Config) -> dict[str, int | None]:
    """Bytes of each memory that the run takes; None where the system does not tell."""
    machine = {MACHINE: memory.available_memory()}
    return machine | {CARD: memory.card_memory()} if config.backend == "cuda" else machine


def _demands(config: Config, plan: Plan, available: dict[str, int | None]) -> Iterator[_Demand]:
    """Of each memory whose size is known; none where it cannot be said what the run takes."""
    needs = needs_of(config, plan)
    if needs is None:
        return
    taken = {MACHINE: needs}
    if config.backend == "cuda":
        there = plan.images * math.prod(plan.shape) if config.data_on == "device" else 0
        taken = {MACHINE: Needs(needs.images, 0, 0), CARD: needs._replace(images=there)}
    for name, part in taken.items():
        left = available[name]
        if left is not None:  # each process has a card of its own
            yield _Demand(name, part, distributed.on_this_machine() if name == MACHINE else 1, left)


def needs_of(config: Config, plan: Plan) -> Needs | None:
    """What a process of a run takes, on whatever it computes; None where that cannot be said."""
    model = _model(config, plan)
    if model is None:
        return None
    weights = _FLOAT * sum(math.prod(array.shape) for array in model.state_shapes().values())
    copies = _STATES.get(config.optimizer, 0) + bool(config.momentum) + bool(config.ema)
    batch = _FLOAT * min(images_of_a_batch(plan.shape), plan.images) * math.prod(plan.shape)
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


def _remedies(config: Config, plan: Plan, available: dict[str, int | None]) -> Iterator[str]:
    """Settings, each of which suffices: another place, the largest batch and the largest images."""

    def fits(config: Config, plan: Plan) -> bool:
        demands = list(_demands(config, plan, available))
        return bool(demands) and all(demand.fits for demand in demands)

    if config.data_on == "device" and fits(replace(config, data_on="host"), plan):
        yield "--data-on host"
    if batch := _largest(config.batch_size, lambda size: fits(replace(config, batch_size=size), plan)):
        yield f"--batch-size {batch}"
    if side := _largest(max(plan.shape[1:]), lambda side: fits(config, _scaled(plan, side))):
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
