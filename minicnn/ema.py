"""A moving average of a model's weights, which often predicts better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minicnn.backends import Array
from minicnn.layers.layer import Layer


class WeightAverage:
    """The exponential moving average of all parameters and of batch norm's running statistics.

    The first update copies.  Update t > 0, with d = min(decay, (1 + t) / (10 + t)), makes the average

        average = d * average + (1 - d) * now

    The rising d lets early weights, which are poor, be forgotten.  Counters, such as num_batches_tracked,
    stay the model's own, and so does all that is frozen.

    Equal:  torch.optim.swa_utils.AveragedModel(model, avg_fn=…, use_buffers=True) with this d
    Source: Polyak and Juditsky 1992; the rising decay is tf.train.ExponentialMovingAverage's num_updates.
    """

    def __init__(self, model: Layer, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"[WeightAverage] decay: expected a number between 0 and 1, got {decay}")
        self.model, self.decay = model, decay
        self.updates = 0
        self.averages: dict[str, Array] = {}

    def update(self) -> None:
        """Take in the model's present weights."""
        backend, now = self.model.backend, self._present()
        if self.updates:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            backend.ema_update(list(self.averages.values()), list(now.values()), decay=decay)
        else:
            self.averages = {
                name: backend.asarray(np.array(backend.to_numpy(a), order="C")) for name, a in now.items()
            }
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the averages for weights; before the first update, as it is."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, state: dict[str, np.ndarray], updates: int) -> None:
        """Take over the model's ``state_dict`` under `applied`, after this many updates."""
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
