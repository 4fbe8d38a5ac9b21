"""A moving average of a model's weights, which often predicts better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minicnn.backends import Array
from minicnn.layers.layer import Layer


class WeightAverage:
    """The exponential moving average of all parameters and of batch norm's running statistics.

    Update 0 copies the weights.  Update t = 1, 2, ... computes, with d = min(decay, (1 + t) / (10 + t)),

        average = d * average + (1 - d) * weights

    At first d is small, so that the early weights, which are poor, are soon forgotten.  Not averaged are
    counters, such as num_batches_tracked, and the arrays of frozen layers: the model's own are used.

    Equal:  torch.optim.swa_utils.AveragedModel(model, avg_fn=…, use_buffers=True) with this d
    Source: Polyak and Juditsky 1992; the rising decay is tf.train.ExponentialMovingAverage's num_updates.
    """

    def __init__(self, model: Layer, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"[WeightAverage] decay: expected a number between 0 and 1, got {decay}")
        self.model, self.decay = model, decay
        self.updates = 0
        self.averages: dict[str, Array] = {}

    @property
    def next_decay(self) -> float:
        """The d of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    def update(self) -> None:
        """Add the model's present weights to the average."""
        backend, now = self.model.backend, self._present()
        if self.updates:
            averages = list(self.averages.values())
            backend.ema_update(averages, list(now.values()), decay=self.next_decay)
        else:
            self.averages = {
                name: backend.asarray(np.array(backend.to_numpy(a), order="C")) for name, a in now.items()
            }
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averages for its weights, if there was an update."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, state: dict[str, np.ndarray], updates: int) -> None:
        """Go on from a ``state_dict`` that the model gave within `applied` after ``updates`` updates."""
        backend = self.model.backend
        self.averages = {name: backend.asarray(state[name].copy()) for name in self._present()}
        self.updates = updates

    def _present(self) -> dict[str, Array]:
        model = self.model
        arrays = model.named_parameters(trainable_only=True) | model.named_buffers(trainable_only=True)
        return {name: a for name, a in arrays.items() if "float" in str(a.dtype)}

    def _swap(self) -> None:
        for prefix, layer in self.model.named_layers():
            for own in (layer.params, layer.buffers):
                for name, present in own.items():
                    full = f"{prefix}.{name}" if prefix else name
                    if full in self.averages:
                        own[name], self.averages[full] = self.averages[full], present
