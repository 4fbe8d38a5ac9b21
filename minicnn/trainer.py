"""One training step: batch -> forward -> loss -> backward -> optimizer.

The Trainer knows nothing of files, epochs or progress bars; `minicnn.app.training` has those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minicnn import distributed
from minicnn.backends import Array
from minicnn.backends.device import device_of
from minicnn.device_step import DeviceStep
from minicnn.distributed.shards import Shards
from minicnn.distributed.step import REDUCE, ShardedStep
from minicnn.distributed.synced import SyncedStep
from minicnn.ema import WeightAverage
from minicnn.graph import Graph, run
from minicnn.layers.layer import Layer
from minicnn.layers.sequential import Sequential
from minicnn.optim import Optimizer
from minicnn.schedules import Schedule
from minicnn.tally import Tally

STEP = ("compute_gradients", "reduce_gradients", "loss_of")
"""Parts of a step: one that is overridden may need what the host knows."""


class Trainer:
    """Trains a model with softmax cross-entropy.

    Args:
        schedule: step number (from 0) -> learning rate; None keeps the optimizer's ``lr``.
        clip_norm: gradients are scaled down to this Euclidean norm where theirs is greater.
        label_smoothing, class_weight: as torch's F.cross_entropy; class_weight is an array (K,).
        fuse: run neighbouring layers as fused operations.
        shards: a batch is cut into so many parts, a power of two, whose gradients are added; None: one for
            each process of the `minicnn.distributed.group` that the trainer is made in.
        reduce: "ordered" adds the processes' gradients in one order, with the same bits for any number of
            them; "fast" in the communication library's order.  Both begin while the backward pass goes on,
            unless `compute_gradients` is overridden.
        sync_batch_norm: batch norms learn from the whole batch, not from each shard by itself; then
            gradients are summed after the backward pass.
        average: the weight average that each step updates at its end.
        capture: on cuda, run a step whose shapes stay as one graph (`minicnn.capture`); the bits are the
            same.  Not with shards, nor where a method of the trainer is overridden.

    After `step`, ``correct`` is the number of right predictions in that batch.  ``tally`` adds up the
    losses and right answers of all steps.
    """

    def __init__(
        self, model: Sequential, optimizer: Optimizer, *, schedule: Schedule | None = None,
        clip_norm: float | None = None, label_smoothing: float = 0.0,
        class_weight: np.ndarray | None = None, fuse: bool = True, shards: int | None = None,
        reduce: str = "ordered", sync_batch_norm: bool = False, average: WeightAverage | None = None,
        capture: bool = True,
    ) -> None:  # fmt: skip
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"[Trainer] clip_norm: expected a number above 0, got {clip_norm}")
        self.model, self.optimizer = model, optimizer
        self.backend, self.fuse = model.bound(), fuse
        self.schedule, self.clip_norm, self.label_smoothing = schedule, clip_norm, label_smoothing
        self.class_weight = None
        if class_weight is not None:
            self.class_weight = self.backend.asarray(np.asarray(class_weight, model.dtype))
        self.correct, self.average = 0, average
        group = distributed.current()
        self.shards = Shards(group.size if shards is None else shards, group)
        if reduce not in REDUCE:
            raise ValueError(f"[Trainer] reduce: expected one of {', '.join(REDUCE)}, got {reduce}")
        self.reduce = reduce
        step = SyncedStep if sync_batch_norm else ShardedStep
        self.sharded = step(self, self.shards, group) if self.shards.count > 1 else None
        device = device_of(self.backend) if self.sharded is None else None
        self.tally = Tally(self.backend, on_device=device is not None)
        self._device_step = (
            None if device is None else DeviceStep(self, device, self.tally, capture=capture)
        )

    @property
    def graph(self) -> Graph:
        """What a step runs."""
        return self.model.graph(training=True, fuse=self.fuse)

    def step(
        self, x: np.ndarray | Array, y: np.ndarray | Array, meanwhile: Callable[[], object] | None = None,
        *, batch_labels: np.ndarray | None = None,
    ) -> float:  # fmt: skip
        """One optimizer step on a batch x (N,C,H,W), y int64 (N,) or probabilities (N,K).

        Both may be host arrays or the backend's own.  ``meanwhile`` is called once a device has the whole
        backward pass to compute, before its results are waited for.

        Each process of a group is given the same batch, and computes its part.  Or it is given only this
        part, ``shards.part(N)``, and the labels of the whole batch as ``batch_labels``, on the host.
        Returns the mean loss of the whole batch before the step.
        """
        self.advance(x, y, meanwhile, batch_labels=batch_labels)
        totals = self.tally.read()
        self.correct = totals.last_correct
        return totals.last_loss

    def advance(
        self, x: np.ndarray | Array, y: np.ndarray | Array, meanwhile: Callable[[], object] | None = None,
        *, batch_labels: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """`step` without a result: what it came to is in ``tally``, so that no device is waited for."""
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.optimizer.steps)
        if self._device_step is None or self.overrides(*STEP):
            loss = self._step_of_host(x, y, meanwhile, batch_labels)
            self.tally.add(loss, self.correct, len(y if batch_labels is None else batch_labels))
            return
        self._device_step.run(x, y)
        if meanwhile is not None:
            meanwhile()
        self._device_step.device.follow()

    def _step_of_host(
        self, x: np.ndarray | Array, y: np.ndarray | Array, meanwhile: Callable[[], object] | None,
        batch_labels: np.ndarray | None,
    ) -> float:  # fmt: skip
        """A step whose loss the host needs."""
        if self.sharded is None:
            loss = self.compute_gradients(x, y, meanwhile)
        else:
            if batch_labels is None:
                if len(x) != len(y):
                    raise ValueError(f"[Trainer] y: expected {len(x)} labels, one an image, got {len(y)}")
                part = self.shards.part(len(y))
                x, y, batch_labels = x[part], y[part], self._on_host(y)
            loss, self.correct = self.sharded.compute(x, y, batch_labels, meanwhile)
        self.reduce_gradients(self.model.named_gradients())
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        self.optimizer.step(self.model)
        if self.average is not None:
            self.average.update()
        return loss

    def overrides(self, *names: str) -> bool:
        """Whether one of these methods is another one than here."""
        own = [getattr(getattr(self, name), "__func__", None) for name in names]
        return own != [getattr(Trainer, name) for name in names]

    def check_batches(self, sizes: Iterable[int]) -> None:
        """Raise ValueError if a batch of one of these sizes leaves too few images in a shard."""
        if self.sharded is not None:
            for size in sizes:
                self.sharded.check(size)

    def compute_gradients(
        self, x: np.ndarray | Array, y: np.ndarray | Array, meanwhile: Callable[[], object] | None = None,
        done: Callable[[Layer], object] | None = None, share: float = 1.0,
    ) -> float:  # fmt: skip
        """Forward, loss and backward of one batch or shard: sets the model's gradients and ``correct``.

        ``done`` is called with each layer whose gradients are complete before the end; see `run.backward`.
        The gradients are those of ``share`` times the mean loss.
        """
        backend = self.backend
        inputs, labels = self._on_backend(x), self._on_backend(y)
        graph = self.graph
        logits, saved = run.forward(graph, backend, inputs, True)
        loss, probs, dlogits = self.loss_of(logits, labels, share)
        run.backward(graph, backend, dlogits, saved, done)
        if meanwhile is not None:
            meanwhile()
        self.correct = self._count_correct(backend.to_numpy(probs), self._on_host(y))
        return float(loss)

    def loss_of(self, logits: Array, labels: Array, share: float = 1.0) -> tuple[Array, Array, Array]:
        """The mean loss, the probabilities (N,K), and ``share`` times the gradient to the logits (N,K)."""
        options: dict[str, Any] = {
            "label_smoothing": self.label_smoothing,
            "class_weight": self.class_weight,
        }
        loss, probs = self.backend.softmax_cross_entropy_forward(logits, labels, **options)
        dlogits = self.backend.softmax_cross_entropy_backward(probs, labels, **options)
        if share == 0:  # no label counts, so that the loss is 0 / 0
            dlogits[...] = 0
        elif share != 1:
            self.backend.scale([dlogits], share)
        return loss, probs, dlogits

    def reduce_gradients(self, grads: dict[str, Array]) -> None:
        """A hook between backward and the optimizer, for a subclass that changes gradients."""

    def _clip(self, limit: float) -> None:
        """Torch: nn.utils.clip_grad_norm_."""
        grads = list(self.model.named_gradients().values())
        factor = limit / (self.backend.global_norm(grads) + 1e-6)
        if factor < 1:
            self.backend.scale(grads, factor)

    def _on_backend(self, a: np.ndarray | Array) -> Array:
        return self.backend.asarray(a) if isinstance(a, np.ndarray) else a

    def _on_host(self, a: np.ndarray | Array) -> np.ndarray:
        return a if isinstance(a, np.ndarray) else self.backend.to_numpy(a)

    @staticmethod
    def _count_correct(probs: np.ndarray, labels: np.ndarray) -> int:
        if not len(probs):
            return 0
        target = labels if labels.ndim == 1 else labels.argmax(axis=1)
        return int((probs.argmax(axis=1) == target).sum())
