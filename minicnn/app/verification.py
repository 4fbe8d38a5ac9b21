"""Whether an exported model gives what minicnn predicts, by images, in every engine that runs it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from minicnn import calibration, data, metrics
from minicnn.app.engines import Engine
from minicnn.data.progress import OnProgress, ignore
from minicnn.text import percent

BOUND = 1e-3
"""How far logits may be from minicnn's, as a share of the largest of them; probabilities as they are."""

_SMALLEST = 1e-5
"""A difference of logits that is never too large."""

_TOGETHER = 64


@dataclass(frozen=True)
class Verification:
    """What an engine made of the images, beside what minicnn did."""

    engine: str
    version: str
    images: int
    largest_difference: float
    """Of a logit from minicnn's."""
    largest_logit: float
    """Of minicnn's, without its sign."""
    largest_difference_of_probabilities: float
    other_answers: int
    """Images whose likeliest class is another one."""
    accuracy: float
    accuracy_of_minicnn: float

    def __str__(self) -> str:
        return (
            f"{self.engine} {self.version}: accuracy {percent(self.accuracy, 2)}, minicnn "
            f"{percent(self.accuracy_of_minicnn, 2)}; logits differ by {self.largest_difference:.2g} at "
            f"most (the largest is {self.largest_logit:.2g}), probabilities by "
            f"{self.largest_difference_of_probabilities:.2g}, answers of {self.other_answers:,} of "
            f"{self.images:,} images"
        )

    def entry(self) -> dict[str, object]:
        """The result for a file's metadata."""
        return asdict(self)

    def check(self, most_lost: float | None) -> None:
        """Raise ValueError if the model is not the same; with ``most_lost``, if it is that much worse."""
        where = f"[export] verify: {self.engine} {self.version}:"
        if most_lost is not None:
            lost = self.accuracy_of_minicnn - self.accuracy
            if not lost <= most_lost + 1e-12:
                raise ValueError(
                    f"{where} expected an accuracy at most {100 * most_lost:g} points below minicnn's "
                    f"{percent(self.accuracy_of_minicnn, 2)}, got {percent(self.accuracy, 2)}"
                )
            return
        bound = BOUND * self.largest_logit + _SMALLEST
        if not self.largest_difference <= bound:
            raise ValueError(
                f"{where} expected logits within {bound:.2g} of minicnn's, got a difference of "
                f"{self.largest_difference:.2g}"
            )
        if not self.largest_difference_of_probabilities <= BOUND:
            raise ValueError(
                f"{where} expected probabilities within {BOUND:g} of minicnn's, got a difference of "
                f"{self.largest_difference_of_probabilities:.2g}"
            )


def verify(
    engine: Engine, images: data.Images, logits: np.ndarray, temperature: float | None,
    progress: OnProgress = ignore,
) -> Verification:  # fmt: skip
    """Run the images through the engine, and compare with minicnn's logits (N,K) of them."""
    expected = metrics.softmax(calibration.scaled(logits, temperature))
    difference = difference_of_probabilities = 0.0
    found = np.empty_like(logits)
    for start in range(0, len(images), _TOGETHER):
        progress(start, len(images))
        some = np.arange(start, min(start + _TOGETHER, len(images)))
        probabilities, found[some] = engine.run(images.take(some))
        difference = _largest(difference, found[some] - logits[some])
        difference_of_probabilities = _largest(difference_of_probabilities, probabilities - expected[some])
    return Verification(
        engine.name, engine.version, len(images), difference, float(np.abs(logits).max()),
        difference_of_probabilities, int((found.argmax(axis=1) != logits.argmax(axis=1)).sum()),
        metrics.accuracy(found, images.y), metrics.accuracy(logits, images.y),
    )  # fmt: skip


def _largest(before: float, differences: np.ndarray) -> float:
    """The larger of two, and NaN if there is one."""
    return float(np.maximum(before, np.abs(differences).max()))
