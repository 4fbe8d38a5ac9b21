"""Augmentation: each change against an independent reference, and the same images every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import functional as tv

from minicnn import data
from minicnn.app.command_line import exit_with
from minicnn.app.commands import preview, train
from minicnn.app.experiment import Experiment
from minicnn.app.settings import Config
from minicnn.data.augment import AMOUNTS, Augment
from minicnn.data.draws import EpochAugment
from minicnn.data.warp import affine_matrices
from minicnn.ops import make_batch

EVERYTHING = (
    "rotate=10,zoom=0.1,shift=2,flip,crop=4,brightness=0.2,contrast=0.2,cutout=8,erase=0.5,mixup=0.2,"
    "saturation=0.2,resized=0.3,ratio=1.5,randaugment=9,cutmix=1"
)
MEAN = np.array([0.3, 0.5])


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    """Images that are neither square nor grey."""
    return rng.integers(0, 256, (40, 2, 9, 12), dtype=np.uint8)


def changed(x: np.ndarray, text: str, epoch: int = 0) -> tuple[np.ndarray, EpochAugment]:
    changes = EpochAugment(Augment.parse(text), len(x), x.shape[2:], seed=3, epoch=epoch)
    table = changes.table(np.arange(len(x)))
    return make_batch.changed(x.copy(), table, 255 * MEAN[: x.shape[1]].astype(np.float32)), changes


def warped(x: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    table = make_batch.unchanged(len(x))
    table["warped"], table["affine"], table["reach"] = 1, matrices, (-1, -1, *x.shape[2:])
    return make_batch.changed(x.copy(), table, MEAN.astype(np.float32))


def batches(text: str | None, size: int = 16, **options: object) -> data.Batches:
    dataset = data.load("fashion-mnist-sample", limit_train=50, limit_test=1)
    return data.Batches(
        dataset.train, size, mean=dataset.mean, std=dataset.std, num_classes=10,
        augment=None if text is None else Augment.parse(text), **options,
    )  # fmt: skip


# ---- each change against a reference -----------------------------------------------------------------


PLACES = [(0, 1, 0, 0), (33, 1, 0, 0), (-90, 1, 0, 0), (0, 1.4, 0, 0), (0, 0.6, 0, 0), (0, 1, 1.5, -2.25),
          (-20, 0.8, -3, 0.5), (170, 1.2, 2, 2), (5, 1, 40, 0)]  # fmt: skip


@pytest.mark.parametrize(("angle", "zoom", "down", "right"), PLACES)
def test_warp_is_scipys_and_torchvisions(
    x: np.ndarray, angle: float, zoom: float, down: float, right: float
) -> None:
    x = x[:3]
    columns = [np.full(3, value, np.float64) for value in (angle, zoom, down, right)]
    matrices = affine_matrices(*columns, x.shape[2:])
    got = warped(x, matrices)
    linear, offset = matrices[0, ::-1, 1::-1], matrices[0, ::-1, 2]
    expected = [
        [
            ndimage.affine_transform(np.float64(plane), linear, offset, order=1, mode="grid-constant")
            for plane in image
        ]
        for image in x
    ]
    np.testing.assert_allclose(got, expected, atol=2e-3)
    theirs = tv.affine(
        torch.from_numpy(x).double(), -angle, [right, down], zoom, [0.0], tv.InterpolationMode.BILINEAR
    )
    if right == int(right) and down == int(down):  # torchvision moves by whole pixels
        np.testing.assert_allclose(got, theirs.numpy(), atol=2e-3)


def test_warp_with_nothing_to_do_changes_no_bit(x: np.ndarray) -> None:
    one, zero = np.ones(len(x)), np.zeros(len(x))
    np.testing.assert_array_equal(warped(x, affine_matrices(zero, one, zero, zero, x.shape[2:])), x)


def test_an_image_is_warped_the_same_in_any_batch(rng: np.random.Generator) -> None:
    """A batch is warped in parts, and the images' size decides how large they are."""
    x = rng.integers(0, 256, (70, 2, 20, 25), dtype=np.uint8)
    matrices = affine_matrices(*(rng.uniform(0.5, 2, 70) for _ in range(4)), (20, 25))
    whole = warped(x, matrices)
    for i in (0, 12, 69):
        np.testing.assert_array_equal(warped(x[i : i + 1], matrices[i : i + 1])[0], whole[i])


def test_warp_draws_reach_their_bounds_and_no_further(x: np.ndarray) -> None:
    x = np.repeat(x, 20, axis=0)
    got, changes = changed(x, "rotate=30,zoom=0.5,shift=2")
    drawn = changes.draws
    angle, zoom = 30 * drawn["rotate"], 1 + 0.5 * drawn["zoom"]
    down, right = 2 * drawn["shift_y"], 2 * drawn["shift_x"]
    for values, low, high in ((angle, -30, 30), (zoom, 0.5, 1.5), (down, -2, 2), (right, -2, 2)):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() > high - 0.05 * (high - low)
    expected = warped(x, affine_matrices(angle, zoom, down, right, x.shape[2:]))
    np.testing.assert_array_equal(got, expected)


def test_flip_shows_either_side_once_in_two_epochs(x: np.ndarray) -> None:
    epochs = [changed(x, "flip", epoch)[0] for epoch in range(4)]
    mirrored = [(epoch == x[..., ::-1]).all((1, 2, 3)) for epoch in epochs]
    as_is = [(epoch == x).all((1, 2, 3)) for epoch in epochs]
    for now, plain in zip(mirrored, as_is, strict=True):
        np.testing.assert_array_equal(now, ~plain)
        assert 0.25 < now.mean() < 0.75
    np.testing.assert_array_equal(mirrored[0], ~mirrored[1])
    np.testing.assert_array_equal(mirrored[0], mirrored[2])


def test_crop_cuts_every_window_of_the_padded_image(x: np.ndarray) -> None:
    got, _ = changed(np.repeat(x, 10, axis=0), "crop=2")
    seen = set()
    for image, source in zip(got, np.repeat(x, 10, axis=0), strict=True):
        padded = tv.pad(torch.from_numpy(source), [2, 2]).numpy()
        places = [
            (i, j) for i in range(5) for j in range(5)
            if np.array_equal(padded[:, i : i + 9, j : j + 12], image)
        ]  # fmt: skip
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 25


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_brightness_and_contrast_are_torchvisions(x: np.ndarray, name: str) -> None:
    x = x[:, :1]
    got, changes = changed(x, f"{name}=0.7")
    adjust = tv.adjust_brightness if name == "brightness" else tv.adjust_contrast
    factors = 1 + 0.7 * changes.draws[name]
    assert factors.min() < 0.5 < 1.5 < factors.max()
    for image, source, factor in zip(got, x, factors, strict=True):
        expected = 255 * adjust(torch.from_numpy(source).double() / 255, factor)
        np.testing.assert_allclose(image, expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("side", [1, 4, 9])
def test_cutout_is_one_square_of_the_mean_colour(x: np.ndarray, side: int) -> None:
    got, changes = changed(x, f"cutout={side}")
    assert len(np.unique(np.argwhere((got != x).any(axis=1))[:, 0])) == len(x)
    for image, source, v, u in zip(
        got, x, changes.draws["cutout_y"], changes.draws["cutout_x"], strict=True
    ):
        expected = source.astype(np.float32)
        top, left = int((v + 1) / 2 * 9) - side // 2, int((u + 1) / 2 * 12) - side // 2
        for i in range(max(top, 0), min(top + side, 9)):
            for j in range(max(left, 0), min(left + side, 12)):
                expected[:, i, j] = 255 * MEAN
        np.testing.assert_array_equal(image, expected)


def test_erase_fills_a_rectangle_of_some_images(rng: np.random.Generator) -> None:
    x = rng.integers(1, 256, (400, 2, 20, 30), dtype=np.uint8)
    got, _ = changed(x, "erase=0.25")
    colour = 255 * MEAN.astype(np.float32)[:, None, None]
    filled = (got == colour).all(1)
    np.testing.assert_array_equal(np.where(filled[:, None], colour, x), got)
    due = filled.any((1, 2))
    assert due.mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400) ** 0.5)
    tall, wide = (filled.any(axis)[due].sum(1) for axis in (2, 1))
    np.testing.assert_array_equal(tall * wide, filled.sum((1, 2))[due])  # a whole rectangle each
    share, ratio = tall * wide / 600, tall / wide
    assert 0.01 < share.min() < 0.06 < 0.27 < share.max() < 0.36
    assert 0.2 < ratio.min() < 0.5 < 2 < ratio.max() < 4.5
    for edge in (filled[:, 0], filled[:, -1], filled[..., 0], filled[..., -1]):
        assert edge.any(), "a rectangle may lie at any edge"
    assert changed(x, "erase=1")[0].tobytes() != got.tobytes()


# ---- the same every time -----------------------------------------------------------------------------


def test_off_is_off() -> None:
    plain, off = list(batches(None).epoch(1)), list(batches("none").epoch(1))
    for (x, y), (x_off, y_off) in zip(plain, off, strict=True):
        np.testing.assert_array_equal(x_off, x, strict=True)
        np.testing.assert_array_equal(y_off, y, strict=True)


@pytest.mark.parametrize("name", [*AMOUNTS, "flip"])
def test_one_change_draws_the_same_with_and_without_the_others(name: str) -> None:
    """Adding one change leaves the random numbers of the others as they were."""
    if name == "ratio":
        pytest.skip("it is no change of its own")
    text = name if name == "flip" else f"{name}=1" if AMOUNTS[name].whole else f"{name}=0.5"
    alone, together = (EpochAugment(Augment.parse(t), 50, (9, 12), 0, 0) for t in (text, EVERYTHING))
    for attribute, values in vars(alone).items():
        if isinstance(values, np.ndarray) and attribute not in ("shares", "patch_shares", "patches"):
            np.testing.assert_array_equal(getattr(together, attribute), values)
    for column, values in alone.draws.items():
        np.testing.assert_array_equal(together.draws[column], values)


def test_images_follow_from_seed_and_epoch() -> None:
    def images(seed: int, epoch: int, start: int = 0) -> list[np.ndarray]:
        return [x for x, _ in batches(EVERYTHING, seed=seed).epoch(epoch, start)]

    first = images(1, 2)
    for got, expected in zip(images(1, 2), first, strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(images(1, 2, start=2), first[2:], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(images(2, 2)[0], first[0])
    assert not np.array_equal(images(1, 3)[0], first[0])


def test_batch_size_changes_no_image() -> None:
    text = EVERYTHING.replace(",mixup=0.2", "").replace(",cutmix=1", "")
    small, large = (np.concatenate([x for x, _ in batches(text, n).epoch(0)]) for n in (7, 50))
    np.testing.assert_array_equal(small, large)


def test_labels_stay_with_their_images_and_are_probabilities_with_mixup() -> None:
    for x, y in batches(EVERYTHING, dtype="float64").epoch(0):
        assert (x.dtype, y.dtype, y.shape) == (np.float64, np.float64, (len(x), 10))
        np.testing.assert_allclose(y.sum(axis=1), 1)
    plain, augmented = (
        np.concatenate([y for _, y in batches(t).epoch(4)]) for t in ("none", "flip,crop=2")
    )
    np.testing.assert_array_equal(plain, augmented)


def test_data_are_left_as_they_were() -> None:
    source = batches(EVERYTHING)
    before = source.images.x.copy()
    assert len(list(source.epoch(0))) == 4
    np.testing.assert_array_equal(source.images.x, before)


def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    flags = train.parse(["--model", "lenet5", "--backend", "numpy", "--epochs", "2", "--batch-size", "16",
                         "--augment", EVERYTHING])  # fmt: skip
    config = Config.resolve(vars(flags))
    dataset = data.load("fashion-mnist-sample", limit_train=50, limit_test=10)

    def go(experiment: Experiment, steps: int) -> None:
        while steps:
            for _ in experiment.steps():
                steps -= 1
                if not steps:
                    return
            experiment.finish_epoch()

    whole, first, second = (Experiment(config, dataset) for _ in range(3))
    go(whole, 7)
    go(first, 5)
    second.restore(tmp_path, first.checkpoint())
    go(second, 2)
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], array)
    assert second.sums["correct"] == whole.sums["correct"]


# ---- settings ----------------------------------------------------------------------------------------


def test_text_and_settings() -> None:
    parsed = Augment.parse(" rotate = 10 , flip,crop=4 ")
    assert parsed == Augment(rotate=10, flip=True, crop=4)
    assert str(parsed) == "rotate=10,flip,crop=4"
    assert Augment.parse(str(Augment.parse(EVERYTHING))) == Augment.parse(EVERYTHING)
    assert Augment.parse("none") == Augment() == Augment.parse(str(Augment()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotat=10", r"expected rotate=N, zoom=N, .*, flip or none, got 'rotat'"),
        ("", "expected rotate=N, .* got ''"),
        ("rotate", "rotate: expected rotate= with a number of degrees from 0 to 180, got ''"),
        ("rotate=181", "from 0 to 180, got '181'"),
        ("rotate=nan", "from 0 to 180, got 'nan'"),
        ("zoom=1", "a number of shares from 0 below 1, got '1'"),
        ("shift=-1", "a number of pixels from 0, got '-1'"),
        ("shift=inf", "a number of pixels from 0, got 'inf'"),
        ("crop=1.5", "a whole number of pixels from 0, got '1.5'"),
        ("resized=1.5", "resized: .* a number of share from 0 to 1, got '1.5'"),
        ("randaugment=31", "a number of magnitude from 0 to 30, got '31'"),
        ("resized=0.5,ratio=0.5", "a number of times from 1, got '0.5'"),
        ("ratio=2", "ratio: expected resized beside it, got ratio=2 alone"),
        ("flip=1", "flip: expected no value, got '1'"),
        ("flip,flip", "flip: expected once, got it twice"),
    ],
)
def test_wrong_text_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment.parse(text)


@pytest.mark.parametrize(
    ("text", "limit"), [("crop=28", "below"), ("shift=27.5", "below"), ("cutout=29", "at most")]
)
def test_more_than_the_image_is_refused(text: str, limit: str) -> None:
    name, _, value = text.partition("=")
    with pytest.raises(
        ValueError, match=f"{name}: expected {limit} the image's side of 28 pixels, got {value}"
    ):
        batches(text)


def test_settings_are_checked_without_a_text_too() -> None:
    with pytest.raises(ValueError, match="brightness: expected a number of shares from 0 to 1, got 2"):
        Augment(brightness=2)


def test_mixup_needs_the_number_of_classes() -> None:
    images = data.Images(np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int64))
    for name in ("mixup", "cutmix"):
        with pytest.raises(ValueError, match=f"num_classes: expected a number, which {name}'s labels need"):
            data.Batches(images, 2, mean=[0], std=[1], augment=Augment(**{name: 1}))


def test_run_settings_hold_the_text_in_its_plain_form() -> None:
    for text, expected in (("flip, rotate=10", "rotate=10,flip"), ("none", None), ("crop=0", None)):
        assert Config.resolve(vars(train.parse(["--augment", text]))).augment == expected


# ---- preview -----------------------------------------------------------------------------------------


def test_preview_draws_the_images_that_training_sees(tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    preview.main(["--augment", EVERYTHING, "--images", "2", "--epochs", "3", "--out", str(out)])
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 100
    dataset, numbers = data.load("fashion-mnist-sample", limit_test=1), np.array([1, 3])
    seen = preview.augmented(dataset, numbers, Augment.parse("rotate=20,crop=3"), seed=5, epoch=1)
    source = data.Batches(
        dataset.train,
        4,
        mean=[0],
        std=[1],
        seed=5,
        shuffle=False,
        augment=Augment.parse("rotate=20,crop=3"),
    )
    np.testing.assert_allclose(seen, 255 * next(source.epoch(1))[0][numbers], atol=0.51)


def test_preview_shows_the_images_that_are_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those held out for validation are none of them, as in a training with the same flags."""
    shown = []
    monkeypatch.setattr(preview.plots, "grid", lambda _, images, *__: shown.append(images[:, 0]))
    preview.main(["--augment", "flip", "--images", "20", "--dataset", "digits", "--validation", "0.5"])
    dataset = data.load("digits", validation=0.5)
    learnt = {image.tobytes() for image in dataset.train.x}
    assert {image.tobytes() for image in shown[0]} <= learnt
    assert len(dataset.train) < 800


def test_preview_tells_errors_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exit_with(lambda: preview.main(["--augment", "crop=28"]))
    assert "error: [augment] crop: expected below the image's side" in capsys.readouterr().err
