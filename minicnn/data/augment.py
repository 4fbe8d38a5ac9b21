"""Augmentation: each training image is changed a little, differently in every epoch.

The change of an image is a pure function of the settings, the seed, the epoch and the image's number in
the dataset.  Neither the batch size nor the backend influences it, and a resumed run needs no state.  Mixup
is an exception: it blends an image with the next one of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minicnn.data.warp import affine_matrices, affine_warp

Range = tuple[NDArray[Any], NDArray[Any]]


class _Amount(NamedTuple):
    """Which values an option takes, what they mean, and what it does: for error messages and the help."""

    unit: str
    effect: str
    highest: float = math.inf
    whole: bool = False
    below: bool = False
    """Whether values must be below ``highest``, so that ``highest`` itself is refused."""

    def accepts(self, value: float) -> bool:
        small = value < self.highest if self.below else value <= self.highest
        return value >= 0 and math.isfinite(value) and small and (not self.whole or value == int(value))

    @property
    def wanted(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        most = "" if self.highest == math.inf else f" {'below' if self.below else 'to'} {self.highest:g}"
        return f"{kind} of {self.unit} from 0{most}"


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
}
FLIP = "mirror left to right: a random half of the images in one epoch, the other half in the next"

_COLUMNS = (
    "rotate", "zoom", "shift_y", "shift_x", "crop_y", "crop_x", "cutout_y", "cutout_x", "brightness",
    "contrast",
)  # fmt: skip
_UNIFORM, _FLIPS, _MIXUP, _ERASE = 1, 2, 3, 4
"""The last part of a generator's seed: each purpose has a generator of its own."""

_ERASED, _SLIMMEST = (0.02, 0.33), 0.3
"""The range of an erased rectangle's share of the image, and its smallest ratio of height to width."""


@dataclass(frozen=True)
class Augment:
    """How far images may be changed, in the units of `AMOUNTS`; 0 or False leaves a change out.

    rotate, zoom and shift together are one warp with bilinear sampling.  The order is: flip, crop, warp,
    brightness, contrast, cutout, erase, mixup.  Pixels from outside an image are black.

    erase is torchvision.transforms.RandomErasing with its default ``scale`` and ``ratio``, and the mean
    colour as its ``value``.  The difference: a rectangle longer than the image is cut off, not drawn again.

    Raises:  ValueError naming the option whose value is wrong and what was expected
    Sources: flips that alternate, Jordan 2024, arXiv:2404.00498; cutout, DeVries and Taylor 2017,
             arXiv:1708.04552; erase, Zhong et al. 2017, arXiv:1708.04896; mixup, Zhang et al. 2017,
             arXiv:1710.09412
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

    def __post_init__(self) -> None:
        for name, amount in AMOUNTS.items():
            if not amount.accepts(getattr(self, name)):
                raise ValueError(f"[augment] {name}: expected {amount.wanted}, got {getattr(self, name)}")

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


class EpochAugment:
    """The augmentation of one epoch: draws random numbers for every image, and changes batches by them.

    Args: images, how many the dataset has · mean (C,) of pixels in [0, 1], the colour of cutout and erase
    """

    def __init__(self, augment: Augment, images: int, mean: ArrayLike, seed: int, epoch: int) -> None:
        self.augment = augment
        self.mean = 255 * np.asarray(mean, np.float32)[:, None, None]
        draws = np.random.default_rng([seed, epoch, _UNIFORM]).uniform(-1, 1, (images, len(_COLUMNS)))
        self.draws = dict(zip(_COLUMNS, draws.T, strict=True))
        in_even_epochs = np.random.default_rng([seed, 0, _FLIPS]).random(images) < 0.5
        self.flips = in_even_epochs if epoch % 2 == 0 else ~in_even_epochs
        if augment.erase:
            self.erased = np.random.default_rng([seed, epoch, _ERASE]).random((images, 5))
        if augment.mixup:
            generator = np.random.default_rng([seed, epoch, _MIXUP])
            self.shares = generator.beta(augment.mixup, augment.mixup, images)

    def images(self, x: NDArray[np.uint8], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """All changes except mixup.

        Args:    x uint8 (B,C,H,W), which may be overwritten · numbers (B,) of the images in the dataset
        Returns: (B,C,H,W), uint8, or float32 with values from 0 to 255
        """
        augment, drawn = self.augment, {name: column[numbers] for name, column in self.draws.items()}
        if augment.flip:
            x = _flipped(x, self.flips[numbers])
        if augment.crop:
            x = _cropped(x, drawn, augment.crop)
        y: NDArray[Any] = x
        if augment.rotate or augment.zoom or augment.shift:
            y = affine_warp(x, self._matrices(drawn, x.shape[2:]))
        if augment.brightness or augment.contrast:
            y = self._recoloured(y.astype(np.float32, copy=False), drawn)
        if augment.cutout:
            y = _cut_out(y.astype(np.float32, copy=False), drawn, augment.cutout, self.mean)
        if augment.erase:
            y = _erase(y.astype(np.float32, copy=False), self.erased[numbers], augment.erase, self.mean)
        return y

    def mixed(
        self, x: NDArray[Any], y: NDArray[np.int64], numbers: NDArray[np.int64], num_classes: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mixup: each image is blended with the next one of the batch, the last with the first.

        An image keeps the greater share, so that its own label stays the likeliest.

        Args:    x float32 or float64 (B,C,H,W) · y int64 (B,) · numbers (B,) of the images in the dataset
        Returns: x (B,C,H,W), probabilities (B, num_classes) of x's dtype
        """
        drawn = self.shares[numbers]
        share = np.maximum(drawn, 1 - drawn).astype(x.dtype)
        labels = np.zeros((len(y), num_classes), x.dtype)
        labels[np.arange(len(y)), y] = 1
        return _blended(x, share[:, None, None, None]), _blended(labels, share[:, None])

    def _matrices(self, drawn: dict[str, NDArray[Any]], size: tuple[int, int]) -> NDArray[np.float64]:
        augment = self.augment
        return affine_matrices(
            augment.rotate * drawn["rotate"], 1 + augment.zoom * drawn["zoom"],
            augment.shift * drawn["shift_y"], augment.shift * drawn["shift_x"], size,
        )  # fmt: skip

    def _recoloured(self, x: NDArray[np.float32], drawn: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Torchvision: functional.adjust_brightness, then adjust_contrast (grey images)."""
        for name, strength in (
            ("brightness", self.augment.brightness),
            ("contrast", self.augment.contrast),
        ):
            if strength:
                factor = (1 + strength * drawn[name]).astype(np.float32)[:, None, None, None]
                middle = x.mean((1, 2, 3), keepdims=True) if name == "contrast" else None
                x *= factor
                if middle is not None:
                    x += (1 - factor) * middle
                np.clip(x, 0, 255, out=x)
        return x


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


def _flipped(x: NDArray[np.uint8], flips: NDArray[np.bool_]) -> NDArray[np.uint8]:
    x[flips] = x[flips, :, :, ::-1]
    return x


def _cropped(x: NDArray[np.uint8], drawn: dict[str, NDArray[Any]], pixels: int) -> NDArray[np.uint8]:
    """Pad each image, then cut the old size out.  Torchvision: RandomCrop(size, padding=pixels)."""
    n, channels, height, width = x.shape
    padded = np.zeros((n, channels, height + 2 * pixels, width + 2 * pixels), x.dtype)
    padded[:, :, pixels:-pixels, pixels:-pixels] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (2, 3))
    top, left = (_whole(drawn[name], 2 * pixels) for name in ("crop_y", "crop_x"))
    return np.asarray(windows[np.arange(n), :, top, left])


def _cut_out(
    x: NDArray[np.float32], drawn: dict[str, NDArray[Any]], side: int, colour: NDArray[np.float32]
) -> NDArray[np.float32]:  # fmt: skip
    """Fill a square with its centre anywhere in the image; it is cut off at the image's edge."""
    top, left = (
        _whole(drawn[name], length - 1) - side // 2
        for name, length in zip(("cutout_y", "cutout_x"), x.shape[2:], strict=True)
    )
    return _filled(x, (top, top + side), (left, left + side), colour)


def _erase(
    x: NDArray[np.float32], drawn: NDArray[np.float64], chance: float, colour: NDArray[np.float32]
) -> NDArray[np.float32]:  # fmt: skip
    """Fill a rectangle of each image whose first number is below ``chance``.

    Args: drawn (B,5) in [0, 1): that number, and those for the rectangle's size, shape and place
    """
    due, size, shape, down, right = drawn.T
    height, width = x.shape[2:]
    area = (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * size) * height * width
    ratio = _SLIMMEST ** (2 * shape - 1)
    tall = np.clip(np.rint(np.sqrt(area * ratio)), 1, height)
    wide = np.clip(np.rint(np.sqrt(area / ratio)), 1, width)
    top = np.floor(down * (height - tall + 1))
    left = np.floor(right * (width - wide + 1))
    return _filled(x, (top, np.where(due < chance, top + tall, top)), (left, left + wide), colour)


def _filled(
    x: NDArray[np.float32], rows: Range, columns: Range, colour: NDArray[np.float32]
) -> NDArray[np.float32]:  # fmt: skip
    """Fill a rectangle of each image: from row rows[0] to before rows[1], both (N,); columns likewise."""
    inside = []
    for (start, end), length in zip((rows, columns), x.shape[2:], strict=True):
        places = np.arange(length)
        inside.append((places >= start[:, None]) & (places < end[:, None]))
    mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    np.copyto(x, colour, where=mask)
    return x


def _whole(drawn: NDArray[Any], highest: int) -> NDArray[np.int64]:
    """Numbers drawn from [-1, 1), made whole: each number from 0 to ``highest`` is equally likely."""
    return ((drawn + 1) / 2 * (highest + 1)).astype(np.int64)


def _blended(a: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
    """share * a + (1 - share) * the next row of a; the row after the last is the first."""
    blend: NDArray[Any] = np.concatenate([a[1:], a[:1]])
    blend -= a
    blend *= 1 - share
    blend += a
    return blend
