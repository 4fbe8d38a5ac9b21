"""The settings of augmentation: how far each training image may be changed, differently in every epoch.

`minicnn.data.draws` draws the changes, and the operation `make_batch` of a backend makes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self


class _Amount(NamedTuple):
    """Which values an option takes, what they mean, and what it does: for error messages and the help."""

    unit: str
    effect: str
    highest: float = math.inf
    whole: bool = False
    below: bool = False
    """Whether values must be below ``highest``, so that ``highest`` itself is refused."""
    lowest: float = 0
    """The lowest value besides 0, which always means that there is no such change."""

    def accepts(self, value: float) -> bool:
        small = value < self.highest if self.below else value <= self.highest
        large = value == 0 or value >= self.lowest
        return large and math.isfinite(value) and small and (not self.whole or value == int(value))

    @property
    def wanted(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        most = "" if self.highest == math.inf else f" {'below' if self.below else 'to'} {self.highest:g}"
        return f"{kind} of {self.unit} from {self.lowest:g}{most}"


AMOUNTS = {
    "rotate": _Amount("degrees", "turn by up to this angle either way", 180),
    "zoom": _Amount("shares", "enlarge or shrink by up to this share", 1, below=True),
    "shift": _Amount("pixels", "move by up to this, fractions included, along each axis"),
    "crop": _Amount("pixels", "pad by this on each side, then cut the old size out anywhere", whole=True),
    "brightness": _Amount("shares", "multiply pixels by 1 - share to 1 + share", 1),
    "contrast": _Amount("shares", "multiply distances from the image's mean by 1 - share to 1 + share", 1),
    "cutout": _Amount("pixels", "fill a square of this side with the mean colour", whole=True),
    "erase": _Amount("chance", "fill a rectangle of 0.02 to 0.33 of the image with the mean colour", 1),
    "mixup": _Amount("alpha", "blend with another image and its label, by a share from Beta(alpha, alpha)"),
    "saturation": _Amount("shares", "multiply distances from a pixel's grey by 1 - share to 1 + share", 1),
    "resized": _Amount(
        "share", "cut out a rectangle of this share of the image to all of it, and enlarge it", 1
    ),
    "ratio": _Amount(
        "times", "the most that its width may be of its height, and its height of its width (4/3)", lowest=1
    ),
    "randaugment": _Amount("magnitude", "two operations of RandAugment's, drawn for each image", 30),
    "cutmix": _Amount(
        "alpha", "paste a rectangle of another image, whose share is from Beta(alpha, alpha)"
    ),
}
FLIP = "mirror left to right: a random half of the images in one epoch, the other half in the next"


@dataclass(frozen=True)
class Augment:
    """How far images may be changed, in the units of `AMOUNTS`; 0 or False leaves a change out.

    The order is: flip, crop, warp, brightness, contrast, saturation, posterize, solarize, cutout, erase,
    and mixup or cutmix.  The warp is resized, rotate, zoom, shift and what randaugment shears, moves
    and turns, in one step with bilinear sampling.  Pixels from outside an image are black.

    resized is torchvision.transforms.RandomResizedCrop with scale=(resized, 1) and ratio=(1/ratio, ratio),
    for images whose size stays what it was; ratio=0 means 4/3.  Where the same image is also turned, moved
    or zoomed, what lies beyond the rectangle comes into view.

    randaugment does two of the operations of torchvision.transforms.RandAugment, drawn alike, at the
    magnitude given of its 31: Identity, ShearX, ShearY, TranslateX, TranslateY, Rotate, Brightness, Color,
    Contrast, Posterize and Solarize.  AutoContrast, Equalize and Sharpness are none of them.

    saturation does nothing to images that have not three channels.  With both mixup and cutmix, half of the
    images get the one and half the other.

    erase is torchvision.transforms.RandomErasing with its default ``scale`` and ``ratio``, and the mean
    colour as its ``value``.  The difference: a rectangle longer than the image is cut off, not drawn again.

    Raises:  ValueError naming the option whose value is wrong and what was expected
    Sources: flips that alternate, Jordan 2024, arXiv:2404.00498; cutout, DeVries and Taylor 2017,
             arXiv:1708.04552; erase, Zhong et al. 2017, arXiv:1708.04896; mixup, Zhang et al. 2017,
             arXiv:1710.09412; cutmix, Yun et al. 2019, arXiv:1905.04899; resized, Szegedy et al. 2014,
             arXiv:1409.4842; RandAugment, Cubuk et al. 2019, arXiv:1909.13719
    """

    rotate: float = 0
    zoom: float = 0
    shift: float = 0
    flip: bool = False
    crop: int = 0
    brightness: float = 0
    contrast: float = 0
    cutout: int = 0
    erase: float = 0
    mixup: float = 0
    saturation: float = 0
    resized: float = 0
    ratio: float = 0
    randaugment: float = 0
    cutmix: float = 0

    def __post_init__(self) -> None:
        for name, amount in AMOUNTS.items():
            if not amount.accepts(getattr(self, name)):
                raise ValueError(f"[augment] {name}: expected {amount.wanted}, got {getattr(self, name)}")
        if self.ratio and not self.resized:
            raise ValueError(f"[augment] ratio: expected resized beside it, got ratio={self.ratio:g} alone")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others, so that labels are probabilities."""
        return bool(self.mixup or self.cutmix)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The settings that a text such as ``rotate=10,zoom=0.1,flip`` asks for; ``none`` asks for none.

        Raises: ValueError naming the part that is wrong and what was expected
        """
        if text.strip() == "none":
            return cls()
        settings: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if name not in (*AMOUNTS, "flip"):
                raise ValueError(f"[augment] expected {', '.join(_names())} or none, got {name!r}")
            if name in settings:
                raise ValueError(f"[augment] {name}: expected once, got it twice")
            if name == "flip" and equals:
                raise ValueError(f"[augment] flip: expected no value, got {value!r}")
            settings[name] = True if name == "flip" else _number(name, value)
        return cls(**settings)

    def __str__(self) -> str:
        """The text that `parse` takes."""
        set_ = {f.name: value for f in fields(self) if (value := getattr(self, f.name))}
        return ",".join(name if name == "flip" else f"{name}={v:g}" for name, v in set_.items()) or "none"

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if an amount of pixels is too much for images of this size."""
        for name, most in (("shift", 1), ("crop", 1), ("cutout", 0)):
            if getattr(self, name) > min(height, width) - most:
                limit = f"{'below' if most else 'at most'} the image's side of {min(height, width)} pixels"
                raise ValueError(f"[augment] {name}: expected {limit}, got {getattr(self, name):g}")


def help_text() -> str:
    """One clause for each option, for --help."""
    parts = [f"{name}=N ({a.unit}): {a.effect}" for name, a in AMOUNTS.items()]
    return "; ".join([*parts, f"flip: {FLIP}"])


def _names() -> list[str]:
    return [f"{name}=N" for name in AMOUNTS] + ["flip"]


def _number(name: str, text: str) -> float:
    amount = AMOUNTS[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not amount.accepts(value):
        raise ValueError(f"[augment] {name}: expected {name}= with {amount.wanted}, got {text!r}")
    return int(value) if amount.whole else value
