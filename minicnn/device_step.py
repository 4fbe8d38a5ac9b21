"""Training steps on a device for which the host does not wait: queued one by one, or captured as one graph.

The losses and right answers of the steps are added up on the device (`minicnn.tally`).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn import shapes
from minicnn.backends import Array
from minicnn.backends.device import Device
from minicnn.capture import CapturedStep, obstacle, signature
from minicnn.distributed.step import IGNORED
from minicnn.graph import run
from minicnn.tally import Tally

if TYPE_CHECKING:
    from minicnn.trainer import Trainer

STEPS_BEFORE_CAPTURE = 2
"""So many steps of one shape run as they are: they load kernels, make states, and show that shapes stay."""


class DeviceStep:
    """Queues a trainer's steps.  Those of the shape that comes again and again are captured, if wanted."""

    def __init__(self, trainer: Trainer, device: Device, tally: Tally, *, capture: bool) -> None:
        self.trainer, self.device, self.tally = trainer, device, tally
        self._capture, self._asked = capture, False
        self.captured: CapturedStep | None = None
        self._last: tuple[Any, ...] = ()
        self._times = 0

    def __getstate__(self) -> dict[str, Any]:
        # A graph belongs to its arrays: a copy captures its own.
        return {**vars(self), "captured": None, "_last": (), "_times": 0}

    def run(self, x: np.ndarray | Array, y: np.ndarray | Array) -> None:
        """Queue a step on a batch x (N,C,H,W) and y, int64 (N,) or probabilities (N,K)."""
        backend = self.trainer.backend
        host_labels = y if isinstance(y, np.ndarray) and y.ndim == 1 else None
        inputs, labels = (backend.asarray(a) if isinstance(a, np.ndarray) else a for a in (x, y))
        if not self._wants_capture(inputs, labels):
            self.compute(inputs, labels, host_labels)
            return
        if self.captured is None or self.captured.signature != self._last:
            self._capture_step(inputs, labels)
        if self.captured is None:
            self.compute(inputs, labels, host_labels)
            return
        self._refuse_wrong(host_labels)
        self.captured.run(inputs, labels)

    def compute(self, x: Array, y: Array, host_labels: np.ndarray | None = None) -> None:
        """Everything that a step does: what is captured, too."""
        trainer, backend = self.trainer, self.trainer.backend
        graph = trainer.graph
        logits, saved = run.forward(graph, backend, x, True)
        self.tally.classes = int(logits.shape[1])
        self._refuse_wrong(host_labels)
        dlogits = self.device.cross_entropy_gradient(
            logits, y, self.tally.there, label_smoothing=trainer.label_smoothing,
            class_weight=trainer.class_weight,
        )  # fmt: skip
        run.backward(graph, backend, dlogits, saved)
        if trainer.clip_norm is not None:
            self.device.clip_norm(list(trainer.model.named_gradients().values()), trainer.clip_norm)
        trainer.optimizer.step(trainer.model)
        if trainer.average is not None:
            trainer.average.update()

    def _refuse_wrong(self, labels: np.ndarray | None) -> None:
        """Labels of the host cost nothing to check; the device checks all."""
        if labels is None:
            return
        wrong = labels[((labels < 0) | (labels >= self.tally.classes)) & (labels != IGNORED)]
        if len(wrong):
            expected = f"values from 0 to {self.tally.classes - 1}"
            shapes.fail("softmax_cross_entropy", "labels", expected, int(wrong[0]))

    # ---- capturing ---------------------------------------------------------------------------------

    def _wants_capture(self, x: Array, y: Array) -> bool:
        """Whether this step is like the ones before it, so that it may run as one graph."""
        if not self._asked:
            self._asked = True
            self._give_up(obstacle(self.trainer))
        if not self._capture:
            return False
        now = signature(self.trainer, self.device, x, y)
        if self.captured is not None and self.captured.signature == now:
            if self.captured.has_its_arrays():
                self._last = now
                return True
            self.captured, self._last = None, ()
        self._times = self._times + 1 if now == self._last else 0
        self._last = now
        return self._times >= STEPS_BEFORE_CAPTURE

    def _capture_step(self, x: Array, y: Array) -> None:
        """Capture, or tell once why that is impossible."""
        self.captured = None  # its memory is free for the next one
        reason = obstacle(self.trainer)
        if reason is None:
            try:
                self.captured = CapturedStep(self, self._last, x, y)
            except (RuntimeError, MemoryError) as error:
                reason = str(error) or "there is not enough memory"
        self._give_up(reason)

    def _give_up(self, reason: str | None) -> None:
        """Capture nothing from now on, if there is a reason."""
        if reason is not None and self._capture:
            self._capture = False
            warnings.warn(f"[Trainer] steps run without capture: {reason}", RuntimeWarning, stacklevel=2)
