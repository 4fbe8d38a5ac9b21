"""What a trained model takes and gives: the sizes, numbers and names that must go with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minicnn.checkpoint import Checkpoint

INPUT, PROBABILITIES, LOGITS = "images", "probabilities", "logits"
"""The names of an exported model's input and outputs."""

RESIZING = {
    "stretch": "the whole image is scaled to height x width",
    "crop": "the largest part of these proportions, from the image's middle, is scaled to height x width",
    "pad": "the whole image is scaled in its own proportions, and lies in the middle of black",
}
"""The ways in which images get their size, in words."""


@dataclass(frozen=True)
class Contract:
    """How images become the input of a model, and its outputs probabilities of classes."""

    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    mean: list[float]
    """(C,) of pixels in [0, 1]."""
    std: list[float]
    class_names: list[str]
    temperature: float | None = None
    """What logits are divided by before softmax, if one was fitted."""
    resize: str = "stretch"
    """How images get their size: one of `minicnn.data.resize.RESIZE`."""

    @classmethod
    def of_checkpoint(cls, saved: Checkpoint, resize: str) -> Contract:
        """The contract of a checkpoint's model, whose images got their size in this way."""
        return cls(saved.image_shape, saved.mean, saved.std, saved.class_names, saved.temperature, resize)

    def described(self, *, any_size: bool = False) -> dict[str, Any]:
        """The contract for other programs, as JSON can hold it.

        With ``any_size`` the exported model brings images to their size by itself.
        """
        channels, height, width = self.image_shape
        return {
            "input": {
                "name": INPUT, "dtype": "uint8", "layout": "NCHW", "batch": "any", "channels": channels,
                "colours": "grey" if channels == 1 else "RGB" if channels == 3 else f"{channels} channels",
                "height": "any" if any_size else height, "width": "any" if any_size else width,
            },
            "before": [
                "turn the image upright by its EXIF orientation", "lay a transparent image over white",
                *([] if any_size else [f"{RESIZING[self.resize]}, bilinear with antialiasing"]),
            ],
            "resize": {"how": self.resize, "height": height, "width": width, "in_the_model": any_size},
            "normalisation": {
                "formula": "(images / 255 - mean) / std", "mean": self.mean, "std": self.std,
                "in_the_model": True,
            },
            "outputs": {
                PROBABILITIES: f"(N,{len(self.class_names)}): softmax(logits / temperature)",
                LOGITS: f"(N,{len(self.class_names)})",
            },
            "temperature": 1.0 if self.temperature is None else self.temperature,
        }  # fmt: skip
