"""What training steps add up: their losses and right answers, on the device where it computes them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minicnn import shapes
from minicnn.backends import Array, Backend

NUMBERS = 10
"""``Tally`` of csrc/cuda/device_step.h: float64 numbers in the order of `_Raw`, and one of the kernel's."""


class Totals(NamedTuple):
    """What steps have added up."""

    loss: float
    """The sum over images."""
    correct: int
    last_loss: float
    """The last step's mean."""
    last_correct: int
    diverged: tuple[int, float] | None
    """The first step, from 1, whose loss was not finite, and this loss."""


class _Raw(NamedTuple):
    loss: float
    correct: float
    total_loss: float
    total_correct: float
    steps: float
    diverged_step: float
    diverged_loss: float
    wrong_step: float
    wrong_label: float


class Tally:
    """Adds up steps.  `read` waits for the device; nothing else does.

    ``there`` is the array of the device that its steps add to, None where the host adds.
    """

    def __init__(self, backend: Backend, *, on_device: bool) -> None:
        self._backend, self._here = backend, np.zeros(NUMBERS)
        self.there: Array | None = backend.asarray(self._here.copy()) if on_device else None
        self.classes = 0
        """How many there are, for the error of a wrong label."""

    def begin(self, loss: float = 0.0, correct: int = 0) -> None:
        """Go on from these sums, with no step so far."""
        self._put(_Raw(0, 0, loss, correct, 0, 0, 0, 0, 0))

    def add(self, loss: float, correct: int, images: int) -> None:
        """Add a step that the host knows: its mean loss, right answers and images."""
        raw = self._raw()
        diverged = raw.diverged_step, raw.diverged_loss
        if not math.isfinite(loss) and not raw.diverged_step:
            diverged = raw.steps + 1, loss
        total = raw.total_loss + loss * images
        self._put(_Raw(loss, correct, total, raw.total_correct + correct, raw.steps + 1, *diverged, 0, 0))

    def read(self) -> Totals:
        """The sums so far.  Raises ValueError if a label was no class; such images count for nothing."""
        raw = self._raw()
        if raw.wrong_step:
            self._put(raw._replace(wrong_step=0, wrong_label=0))
            expected = f"values from 0 to {self.classes - 1}"
            shapes.fail("softmax_cross_entropy", "labels", expected, int(raw.wrong_label))
        diverged = (int(raw.diverged_step), raw.diverged_loss) if raw.diverged_step else None
        return Totals(raw.total_loss, int(raw.total_correct), raw.loss, int(raw.correct), diverged)

    def _raw(self) -> _Raw:
        numbers = self._here if self.there is None else self._backend.to_numpy(self.there)
        return _Raw(*numbers[: len(_Raw._fields)].tolist())

    def _put(self, raw: _Raw) -> None:
        numbers = np.array([*raw, 0.0])
        if self.there is None:
            self._here = numbers
        else:
            self.there.copy_(self._backend.asarray(numbers))
