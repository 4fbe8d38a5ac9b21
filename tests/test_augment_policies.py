"""Augmentation: mixing images, resized crops and RandAugment, each against an independent reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as tv

from minicnn.data.augment import Augment
from minicnn.data.draws import EpochAugment, mixed_labels, with_partners
from minicnn.data.randaugment import OPERATIONS, RandAugment
from minicnn.ops import make_batch


def table_of(text: str, images: int, size: tuple[int, int]) -> make_batch.Table:
    changes = EpochAugment(Augment.parse(text), images, size, seed=3, epoch=0)
    return changes.table(np.arange(images))


@pytest.mark.parametrize("text", ["mixup=0.6", "cutmix=0.8", "mixup=0.6,cutmix=0.8"])
def test_mixed_images_and_their_labels_have_the_same_shares(rng: np.random.Generator, text: str) -> None:
    x = rng.integers(0, 256, (40, 2, 9, 12), dtype=np.uint8)
    y, numbers = rng.integers(0, 4, len(x)), rng.permutation(len(x))
    changes = EpochAugment(Augment.parse(text), len(x), x.shape[2:], seed=3, epoch=0)
    table = with_partners(changes.table(numbers))
    got = make_batch.make_batch(x, numbers, table, np.zeros(2), np.ones(2), dtype="float64") * 255
    labels = mixed_labels(y, table, 4, x.shape[2:], "float64")
    blended = cut = 0
    for i, number in enumerate(numbers):
        next_one = numbers[(i + 1) % len(x)]
        own, other = np.float64(x[number]), np.float64(x[next_one])
        share = float(table["share"][i])
        expected = share * own + (1 - share) * other
        top, left, bottom, right = table["patch"][i]
        expected[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        np.testing.assert_allclose(got[i], expected, atol=1e-9)
        kept = share * (1 - (bottom - top) * (right - left) / 108)
        np.testing.assert_allclose(
            labels[i], kept * np.eye(4)[y[i]] + (1 - kept) * np.eye(4)[y[(i + 1) % len(x)]], atol=1e-12
        )
        blended, cut = blended + (share < 1), cut + (bottom > top and right > left)
    assert (blended > 0, cut > 0) == ("mixup" in text, "cutmix" in text)
    if "mixup" in text:
        assert 0.5 <= table["share"].min() < 1
    if "cutmix" not in text:
        np.testing.assert_array_equal(labels.argmax(axis=1), y)


def test_resized_crop_is_torchvisions(rng: np.random.Generator) -> None:
    """Its rectangles have the areas and shapes that were asked for, and are enlarged as torch does it."""
    x = rng.integers(0, 256, (300, 2, 20, 30), dtype=np.uint8)
    table = table_of("resized=0.25,ratio=2", 300, (20, 30))
    got = make_batch.changed(x.copy(), table, np.zeros(2, np.float32))
    top, left, bottom, right = table["reach"].T.astype(int)
    tall, wide = bottom - top + 1, right - left + 1
    for i in range(20):
        box = torch.from_numpy(x[i : i + 1, :, top[i] : bottom[i] + 1, left[i] : right[i] + 1]).double()
        expected = torch.nn.functional.interpolate(box, (20, 30), mode="bilinear", antialias=True)
        np.testing.assert_allclose(got[i], expected[0].numpy(), atol=2e-3)
    area, ratio = tall * wide / 600, wide / tall
    assert 0.22 < area.min() < 0.28 < 0.9 < area.max() <= 1
    assert 0.45 < ratio.min() < 0.6 < 1.7 < ratio.max() < 2.2
    for edge, end in ((top, 0), (left, 0), (bottom, 19), (right, 29)):
        assert (edge == end).any()
    # Of an image that is much too long, the middle is cut out.
    table = table_of("resized=1,ratio=1.5", 3, (4, 30))
    np.testing.assert_array_equal(table["reach"], [[0, 12, 3, 17]] * 3)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_of_randaugment_are_torchvisions(rng: np.random.Generator, operation: str) -> None:
    """Each operation at magnitude 9, as torchvision's transform applies it to a tensor."""
    number = OPERATIONS.index(operation)
    drawn = np.array([[[(number + 0.5) / 11, 0.7], [0.01, 0.7]]])  # and then the identity
    table = make_batch.unchanged(1)
    policy = RandAugment(9, drawn, (20, 30))
    policy.recolour(table)
    table["warped"], table["affine"], table["reach"] = 1, policy.matrices(), (-1, -1, 20, 30)
    x = rng.integers(0, 256, (1, 3, 20, 30), dtype=np.uint8)
    got = make_batch.changed(x.copy(), table, np.zeros(3, np.float32))[0]
    image = torch.from_numpy(x[0]).double() / 255
    shear = 180 / np.pi * np.arctan(0.09)
    bilinear = {"interpolation": tv.InterpolationMode.BILINEAR}
    place = {"angle": 0.0, "scale": 1.0, "translate": [0, 0], "shear": [0.0, 0.0], **bilinear}
    expected = {
        "identity": lambda: image,
        "shear_x": lambda: tv.affine(image, **{**place, "shear": [shear, 0.0]}, center=[0, 0]),
        "shear_y": lambda: tv.affine(image, **{**place, "shear": [0.0, shear]}, center=[0, 0]),
        "translate_x": lambda: tv.affine(image, **{**place, "translate": [int(150 / 331 * 30 * 0.3), 0]}),
        "translate_y": lambda: tv.affine(image, **{**place, "translate": [0, int(150 / 331 * 20 * 0.3)]}),
        "rotate": lambda: tv.rotate(image, 9.0, **bilinear),
        "brightness": lambda: tv.adjust_brightness(image, 1.27),
        "color": lambda: tv.adjust_saturation(image, 1.27),
        "contrast": lambda: (1.27 * image + (1 - 1.27) * image.mean()).clamp(0, 1),
        "posterize": lambda: tv.posterize(torch.from_numpy(x[0]), 7).double() / 255,
        "solarize": lambda: tv.solarize(torch.from_numpy(x[0]), 255 * 0.7).double() / 255,
    }[operation]()
    np.testing.assert_allclose(got, 255 * expected.numpy(), atol=2e-3)
    assert (operation == "identity") == np.array_equal(got, x[0])


def test_randaugment_draws_two_operations_an_image() -> None:
    changes = EpochAugment(Augment(randaugment=9), 2000, (9, 12), seed=3, epoch=0)
    policy = RandAugment(9, changes.operations, (9, 12))
    chances = [policy.drawn[name].mean() for name in OPERATIONS]
    np.testing.assert_allclose(chances, 1 - (10 / 11) ** 2, atol=0.03)
    signs = np.concatenate([policy.signs[name] for name in OPERATIONS])
    assert abs(signs.mean()) < 0.02
    table = changes.table(np.arange(2000))
    np.testing.assert_array_equal(table["warped"] != 0, policy.geometric)
