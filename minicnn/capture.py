"""A whole training step, captured once as a CUDA graph and replayed: one launch instead of hundreds.

A graph repeats its launches with the arguments of the first time.  So whatever changes from step to step
lies in arrays whose place stays: images, labels, what random layers draw, and the optimizer's numbers.
Whatever a graph would freeze for good is in `signature`: another signature needs another capture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backends import Array
from minicnn.backends.device import Device
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.layer import Layer, RandomLayer, Shape
from minicnn.optim import OPTIMIZERS

if TYPE_CHECKING:
    from minicnn.device_step import DeviceStep
    from minicnn.trainer import Trainer

CHANGING = ("lr", "steps", "states")
"""What of an optimizer may change between two replays."""


def signature(trainer: Trainer, device: Device, x: Array, y: Array) -> tuple[Any, ...]:
    """Everything that a captured step has for good, but its arrays."""
    graph = trainer.graph
    options = {name: value for name, value in vars(trainer.optimizer).items() if name not in CHANGING}
    return (
        tuple(x.shape), x.dtype, tuple(y.shape), y.dtype, id(graph), graph.precision, device.tf32,
        [node.operation.attributes() for node in graph.nodes], id(trainer.optimizer), options,
        id(trainer.average), trainer.clip_norm, trainer.label_smoothing, id(trainer.class_weight),
    )  # fmt: skip


def obstacle(trainer: Trainer) -> str | None:
    """Why a step of this trainer cannot be captured; None if it can."""
    if type(trainer.optimizer) not in OPTIMIZERS.values():
        return f"{type(trainer.optimizer).__name__} may compute on the host"
    for layer in _layers(trainer):
        if type(layer).__module__.partition(".")[0] != "minicnn":
            return f"{type(layer).__name__} may compute on the host"
        if isinstance(layer, BatchNorm2d) and layer.momentum is None and layer.requires_grad:
            return "BatchNorm2d(momentum=None) counts its batches on the host"
    return None


class CapturedStep:
    """A step on batches of one shape.

    Its gradients are always the same arrays, which each replay overwrites.

    Raises: RuntimeError if the step does something that cannot be captured, MemoryError if a second set of
            its arrays does not fit; nothing has changed then
    """

    def __init__(self, step: DeviceStep, kept: tuple[Any, ...], x: Array, y: Array) -> None:
        self._trainer, self._device, self._signature = step.trainer, step.device, kept
        self._graph_run = step.trainer.graph  # alive as long as its id is compared
        self._arrays = _arrays(step.trainer)
        self._x, self._y = _like(self._device, x), _like(self._device, y)
        self._numbers = self._device.empty((5,), "float64")
        self._draws: list[tuple[RandomLayer, Shape, Array]] = []
        trainer = step.trainer
        counts = trainer.optimizer.steps, trainer.average.updates if trainer.average else 0
        try:
            with self._fixed_draws(), self._device.numbers_from(self._numbers):
                self._graph = self._device.capture(lambda: step.compute(self._x, self._y))
        finally:  # capturing takes no step
            trainer.optimizer.steps = counts[0]
            if trainer.average:
                trainer.average.updates = counts[1]
        self._grads = [(layer, layer.grads) for layer in _layers(trainer)]

    def fits(self, now: tuple[Any, ...]) -> bool:
        """Whether a step with this signature, on the arrays that there are now, is the captured one."""
        if now != self._signature:
            return False
        arrays = _arrays(self._trainer)
        return len(arrays) == len(self._arrays) and all(map(_same, arrays, self._arrays))

    def run(self, x: Array, y: Array) -> None:
        """Take a step."""
        device, trainer = self._device, self._trainer
        device.refill(self._x, x)
        device.refill(self._y, y)
        for random, shape, array in self._draws:
            device.refill(array, random.draw(shape))
        trainer.optimizer.steps += 1
        decay = trainer.average.next_decay if trainer.average else 0.0
        device.refill(self._numbers, np.array([*trainer.optimizer.numbers(), decay]))
        self._graph.replay()
        if trainer.average:
            trainer.average.updates += 1
        for layer, grads in self._grads:
            layer.grads = grads

    @contextmanager
    def _fixed_draws(self) -> Iterator[None]:
        """Within it, random layers take arrays that are filled before each replay."""
        random = [layer for layer in _layers(self._trainer) if isinstance(layer, RandomLayer)]
        for drawing in random:
            drawing.fixed = self._fixed_draw
        try:
            yield
        finally:
            for drawing in random:
                drawing.fixed = None

    def _fixed_draw(self, layer: RandomLayer, shape: Shape) -> Array:
        array = self._device.empty(shape, "bool")
        self._draws.append((layer, shape, array))
        return array


def _layers(trainer: Trainer) -> list[Layer]:
    return [layer for _, layer in trainer.model.named_layers()]


def _arrays(trainer: Trainer) -> list[Array]:
    """Those that stay in their places from step to step: parameters, buffers, states and averages."""
    places: list[dict[str, Array]] = []
    for layer in _layers(trainer):
        places += [layer.params, layer.buffers]
    places += trainer.optimizer.states.values()
    if trainer.average:
        places.append(trainer.average.averages)
    return [array for place in places for array in place.values()]


def _same(a: Array, b: Array) -> bool:
    return a is b


def _like(device: Device, array: Array) -> Array:
    return device.empty(tuple(array.shape), str(array.dtype).removeprefix("torch."))
