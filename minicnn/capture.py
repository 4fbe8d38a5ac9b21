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
from minicnn.backends.device import Device, DeviceGraph
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.layer import Layer, RandomLayer, Shape, is_users_own
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
        id(trainer.average), trainer.clip_norm, trainer.label_smoothing,
    )  # fmt: skip


def obstacle(trainer: Trainer) -> str | None:
    """Why a step of this trainer cannot be captured; None if it can."""
    if type(trainer.optimizer) not in OPTIMIZERS.values():
        return f"{type(trainer.optimizer).__name__} may compute on the host"
    for layer in _layers(trainer):
        if is_users_own(layer):
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
        trainer = step.trainer
        self._trainer, self._device, self.signature = trainer, step.device, kept
        self._alive = trainer.graph, trainer.optimizer, trainer.average  # so that no other has their ids
        self._arrays = _arrays(trainer)
        self._x, self._y = _like(self._device, x), _like(self._device, y)
        self._numbers = self._device.empty((5,), "float64")
        self._draws: list[tuple[RandomLayer, Shape, Array]] = []
        self._places: list[Array] = []
        counts = trainer.optimizer.steps, trainer.average.updates if trainer.average else 0
        try:
            self._graph = self._captured(step)
            if self._draws:
                # Memory that is taken within a capture is shared with arrays that a step has freed by then,
                # so what is filled before a replay must lie elsewhere.
                self._places = [self._device.empty(shape, "bool") for _, shape, _ in self._draws]
                self._graph = self._captured(step)
        finally:  # capturing takes no step
            trainer.optimizer.steps = counts[0]
            if trainer.average:
                trainer.average.updates = counts[1]
        self._grads = [(layer, layer.grads) for layer in _layers(trainer)]

    def has_its_arrays(self) -> bool:
        """Whether the trainer's arrays are still those that the graph reads and writes."""
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

    def _captured(self, step: DeviceStep) -> DeviceGraph:
        self._draws.clear()
        with self._fixed_draws(), self._device.numbers_from(self._numbers):
            return self._device.capture(lambda: step.compute(self._x, self._y))

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
        place = len(self._draws)
        array = self._places[place] if self._places else self._device.empty(shape, "bool")
        self._draws.append((layer, shape, array))
        return array


def _layers(trainer: Trainer) -> list[Layer]:
    return [layer for _, layer in trainer.model.named_layers()]


def _arrays(trainer: Trainer) -> list[Array]:
    """Those that stay from step to step: parameters, buffers, states, averages and class weights."""
    places: list[dict[str, Array]] = []
    for layer in _layers(trainer):
        places += [layer.params, layer.buffers]
    places += trainer.optimizer.states.values()
    if trainer.average:
        places.append(trainer.average.averages)
    weights = [] if trainer.class_weight is None else [trainer.class_weight]
    return [array for place in places for array in place.values()] + weights


def _same(a: Array, b: Array) -> bool:
    return a is b


def _like(device: Device, array: Array) -> Array:
    return device.empty(tuple(array.shape), str(array.dtype).removeprefix("torch."))
