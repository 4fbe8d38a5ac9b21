"""What augmentation does to each image in an epoch: the rows of numbers from which a batch is made.

The change of an image is a pure function of the settings, the seed, the epoch and the image's number in
the dataset.  Neither the batch size nor the backend influences it, and a resumed run needs no state.  Mixup
and cutmix are an exception: they mix an image with the next one of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minicnn.data.augment import Augment
from minicnn.data.randaugment import AT_ONCE, RandAugment
from minicnn.data.warp import Matrices, affine_matrices, box_matrices, one_after_another
from minicnn.ops.make_batch import Table, unchanged

_COLUMNS = (
    "rotate", "zoom", "shift_y", "shift_x", "crop_y", "crop_x", "cutout_y", "cutout_x", "brightness",
    "contrast",
)  # fmt: skip
_UNIFORM, _FLIPS, _MIXUP, _ERASE, _SATURATION, _RESIZED, _RANDAUGMENT, _CUTMIX = range(1, 9)
"""The last part of a generator's seed: each purpose has a generator of its own."""

_ERASED, _SLIMMEST = (0.02, 0.33), 0.3
"""The range of an erased rectangle's share of the image, and its smallest ratio of height to width."""
_ATTEMPTS, _WIDEST = 10, 4 / 3
"""How often a resized crop is drawn anew until it fits, and its largest ratio of width to height."""

Boxes = NDArray[np.int64]
"""(B,4): top, left, bottom, right."""


class EpochAugment:
    """The augmentation of one epoch: draws random numbers for every image, and makes tables of them.

    Args: images, how many the dataset has · size (H, W)
    """

    def __init__(self, augment: Augment, images: int, size: tuple[int, int], seed: int, epoch: int) -> None:
        self.augment, self.size = augment, size

        def generator(purpose: int) -> np.random.Generator:
            return np.random.default_rng([seed, epoch, purpose])

        draws = generator(_UNIFORM).uniform(-1, 1, (images, len(_COLUMNS)))
        self.draws = dict(zip(_COLUMNS, draws.T, strict=True))
        in_even_epochs = np.random.default_rng([seed, 0, _FLIPS]).random(images) < 0.5
        self.flips = in_even_epochs if epoch % 2 == 0 else ~in_even_epochs
        if augment.erase:
            self.erased = generator(_ERASE).random((images, 5))
        if augment.saturation:
            self.saturations = generator(_SATURATION).uniform(-1, 1, images)
        if augment.resized:
            self.resized = generator(_RESIZED).random((images, _ATTEMPTS + 1, 2))
        if augment.randaugment:
            self.operations = generator(_RANDAUGMENT).random((images, AT_ONCE, 2))
        if augment.mixup:
            self.shares = generator(_MIXUP).beta(augment.mixup, augment.mixup, images)
        if augment.cutmix:
            cutmix = generator(_CUTMIX)
            self.patch_shares = cutmix.beta(augment.cutmix, augment.cutmix, images)
            self.patches = cutmix.random((images, 3))

    def table(self, numbers: NDArray[np.int64]) -> Table:
        """The rows (B,) of the images with these numbers; `with_partners` completes those of a batch."""
        augment, table = self.augment, unchanged(len(numbers))
        drawn = {name: column[numbers] for name, column in self.draws.items()}
        height, width = self.size
        if augment.flip:
            table["flip"] = self.flips[numbers]
        if augment.crop:
            for field, name in (("down", "crop_y"), ("right", "crop_x")):
                table[field] = _whole(drawn[name], 2 * augment.crop) - augment.crop
        for name in ("brightness", "contrast"):
            table[name] = 1 + getattr(augment, name) * drawn[name]
        if augment.saturation:
            table["saturation"] = 1 + augment.saturation * self.saturations[numbers]
        policy = None
        if augment.randaugment:
            policy = RandAugment(augment.randaugment, self.operations[numbers], self.size)
            policy.recolour(table)
        self._warp(table, drawn, numbers, policy)
        if augment.cutout:
            top = _whole(drawn["cutout_y"], height - 1) - augment.cutout // 2
            left = _whole(drawn["cutout_x"], width - 1) - augment.cutout // 2
            table["cutout"] = np.stack([top, left, top + augment.cutout, left + augment.cutout], axis=1)
        if augment.erase:
            table["erase"] = _erased(self.erased[numbers], augment.erase, self.size)
        if augment.mixes:
            self._mix(table, numbers)
        return table

    def _warp(
        self, table: Table, drawn: dict[str, NDArray[Any]], numbers: NDArray[np.int64],
        policy: RandAugment | None,
    ) -> None:  # fmt: skip
        """The maps of all geometric changes, one after another."""
        augment, maps = self.augment, list[Matrices]()
        turned = np.zeros(len(numbers), bool)
        height, width = self.size
        reach = np.broadcast_to(np.array([-1, -1, height, width], np.int64), (len(numbers), 4))
        if augment.resized:
            boxes = _resized(self.resized[numbers], augment.resized, augment.ratio or _WIDEST, self.size)
            maps.append(box_matrices(boxes, self.size))
        if augment.rotate or augment.zoom or augment.shift:
            turned[:] = True
            maps.append(affine_matrices(
                augment.rotate * drawn["rotate"], 1 + augment.zoom * drawn["zoom"],
                augment.shift * drawn["shift_y"], augment.shift * drawn["shift_x"], self.size,
            ))  # fmt: skip
        if policy is not None:
            turned |= policy.geometric
            maps.append(policy.matrices())
        if not maps:
            return
        matrices = maps[0]
        for following in maps[1:]:
            matrices = one_after_another(matrices, following)
        if augment.resized:
            top, left, tall, wide = boxes.T
            inside = np.stack([top, left, top + tall - 1, left + wide - 1], axis=1)
            reach = np.where(turned[:, None], reach, inside)
        table["affine"], table["reach"] = matrices, reach
        table["warped"] = turned | bool(augment.resized)

    def _mix(self, table: Table, numbers: NDArray[np.int64]) -> None:
        augment = self.augment
        cut = np.zeros(len(numbers), bool)
        if augment.cutmix:
            drawn = self.patches[numbers]
            cut = drawn[:, 0] < 0.5 if augment.mixup else ~cut
            patch = _patches(self.patch_shares[numbers], drawn[:, 1:], self.size)
            table["patch"] = np.where(cut[:, None], patch, 0)
        if augment.mixup:
            # An image keeps the greater share, so that its own label stays the likeliest.
            share = np.maximum(self.shares[numbers], 1 - self.shares[numbers])
            table["share"] = np.where(cut, 1, share)


def with_partners(table: Table) -> Table:
    """The table of a batch, in which each image is mixed with the next one, and the last with the first."""
    table["partner"] = np.roll(np.arange(len(table)), -1)
    return table


def mixed_labels(
    y: NDArray[np.int64], table: Table, num_classes: int, size: tuple[int, int], dtype: DTypeLike
) -> NDArray[Any]:
    """The probabilities (B, num_classes) of a batch's images: each label has its image's share of them.

    Args: y int64 (B,) · table (B,) with its partners · size (H, W)
    """
    labels = np.zeros((len(y), num_classes), dtype)
    labels[np.arange(len(y)), y] = 1
    top, left, bottom, right = table["patch"].T.astype(np.int64)
    free = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    share = (table["share"] * free).astype(dtype)[:, None]
    mixed: NDArray[Any] = labels[table["partner"]]
    mixed -= labels
    mixed *= 1 - share
    mixed += labels
    return mixed


# ---- boxes -------------------------------------------------------------------------------------------


def _erased(drawn: NDArray[np.float64], chance: float, size: tuple[int, int]) -> Boxes:
    """A rectangle of each image whose first number is below ``chance``, and an empty one of the others.

    Args: drawn (B,5) in [0, 1): that number, and those for the rectangle's size, shape and place
    """
    due, share, shape, down, right = drawn.T
    height, width = size
    area = (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * share) * height * width
    ratio = _SLIMMEST ** (2 * shape - 1)
    tall = np.clip(np.rint(np.sqrt(area * ratio)), 1, height)
    wide = np.clip(np.rint(np.sqrt(area / ratio)), 1, width)
    top = np.floor(down * (height - tall + 1))
    left = np.floor(right * (width - wide + 1))
    bottom = np.where(due < chance, top + tall, top)
    return np.stack([top, left, bottom, left + wide], axis=1).astype(np.int64)


def _resized(drawn: NDArray[np.float64], smallest: float, widest: float, size: tuple[int, int]) -> Boxes:
    """The rectangle (top, left, height, width) that each image is cut to.

    Torch: torchvision.transforms.RandomResizedCrop.get_params

    Args: drawn (B,11,2) in [0, 1): the area and the shape of ten attempts, and then the place
    """
    height, width = size
    area = (smallest + (1 - smallest) * drawn[:, :-1, 0]) * height * width
    ratio = widest ** (2 * drawn[:, :-1, 1] - 1)
    wide, tall = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    first = fits.argmax(axis=1), np.arange(len(drawn))
    wide, tall, fitted = wide.T[first], tall.T[first], np.asarray(fits.any(axis=1))
    top, left = (np.floor(place * (length - side + 1)) for place, length, side in (
        (drawn[:, -1, 0], height, tall), (drawn[:, -1, 1], width, wide)
    ))  # fmt: skip
    # Where no attempt fits: the middle of the image, in a shape that is allowed.
    most_wide = min(width, round(height * widest))
    most_tall = min(height, round(width * widest))
    middle = (height - most_tall) // 2, (width - most_wide) // 2, most_tall, most_wide
    boxes = np.stack([top, left, tall, wide], axis=1)
    return np.where(fitted[:, None], boxes, middle).astype(np.int64)


def _patches(own: NDArray[np.float64], drawn: NDArray[np.float64], size: tuple[int, int]) -> Boxes:
    """The rectangle of each image that another one takes; it is cut off at the image's edge.

    Torch: torchvision.transforms.v2.CutMix

    Args: own (B,), the image's own share of its area · drawn (B,2) in [0, 1): the rectangle's middle
    """
    sides = []
    for axis, length in enumerate(size):
        middle, half = np.floor(drawn[:, axis] * length), np.floor(0.5 * np.sqrt(1 - own) * length)
        sides.append((np.maximum(middle - half, 0), np.minimum(middle + half, length)))
    (top, bottom), (left, right) = sides
    return np.stack([top, left, bottom, right], axis=1).astype(np.int64)


def _whole(drawn: NDArray[Any], highest: int) -> NDArray[np.int64]:
    """Numbers drawn from [-1, 1), made whole: each number from 0 to ``highest`` is equally likely."""
    return ((drawn + 1) / 2 * (highest + 1)).astype(np.int64)
