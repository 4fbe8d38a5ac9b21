"""Batches of a backend: where its images lie, mapped files among them, and training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicnn import Trainer, data, models, optim
from minicnn.app import experiment as experiment_module
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.prediction import predict_images
from minicnn.app.settings import Config
from minicnn.backends import Backend, get_backend
from minicnn.backends.image_source import Resident, Streamed, image_source
from minicnn.data.augment import Augment
from minicnn.distributed import Group
from minicnn.ops.make_batch import make_batch, unchanged

EVERYTHING = (
    "rotate=10,zoom=0.1,shift=2,flip,crop=4,brightness=0.2,contrast=0.2,cutout=8,erase=0.5,mixup=0.2,"
    "saturation=0.2,resized=0.3,ratio=1.5,randaugment=9,cutmix=1"
)


def batches(images: data.Images, **options: object) -> data.Batches:
    return data.Batches(
        images, 16, mean=[0.3, 0.4, 0.5], std=[0.2, 0.3, 0.4], num_classes=5, seed=3, **options
    )


@pytest.fixture
def images(rng: np.random.Generator) -> data.Images:
    return data.Images(rng.integers(0, 256, (50, 3, 16, 20), dtype=np.uint8), rng.integers(0, 5, 50))


@pytest.mark.parametrize("place", ["host", "device"])
def test_batches_of_every_backend_and_place_have_the_bits_of_numpy(
    backend: Backend, images: data.Images, place: str
) -> None:
    augment = Augment.parse(EVERYTHING)
    mine = batches(images, augment=augment, backend=backend, data_on=place).epoch(2, start=1)
    count = 0
    for x, y in batches(images, augment=augment).epoch(2, start=1):
        got, labels = next(mine)
        mine.prepare()  # as a trainer does while a device computes; it changes nothing
        mine.prepare()
        assert type(got) is type(backend.asarray(x))
        np.testing.assert_array_equal(backend.to_numpy(got), x, strict=True)
        np.testing.assert_array_equal(labels, y, strict=True)
        count += 1
    assert count == len(batches(images)) - 1
    assert next(mine, None) is None


def test_cuda_reads_images_where_it_is_told(images: data.Images) -> None:
    pytest.importorskip("torch")
    numpy = get_backend("numpy")
    assert isinstance(image_source(numpy, images.x, "host"), Resident)
    with pytest.raises(
        ValueError, match=r"\[image_source\] on: expected one of auto, host, device, got disk"
    ):
        image_source(numpy, images.x, "disk")
    streamed = Streamed(images.x, emulated=True)
    first, second = streamed.fetch(np.array([4, 2])), streamed.fetch(np.array([7]))
    for fetched, rows in ((first, [4, 2]), (second, [7])):
        ready = streamed.ready(fetched)
        np.testing.assert_array_equal(ready.images.numpy()[ready.rows], images.x[rows])


@pytest.mark.parametrize("kind", ["mapped", "channels last", "every second", "reversed"])
def test_images_are_read_where_they_lie(
    backend: Backend, images: data.Images, tmp_path: Path, kind: str
) -> None:
    """A file that is mapped read-only, and views of any memory order: none is copied as a whole."""
    x = images.x
    if kind == "mapped":
        np.save(tmp_path / "x.npy", x)
        view = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "channels last":
        view = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif kind == "every second":
        view = np.repeat(np.repeat(x, 2, axis=3), 2, axis=0)[::2, :, :, ::2]
    else:
        view = np.ascontiguousarray(x[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]
    source = image_source(backend, view)
    if backend.name != "cuda":
        assert source.ready(source.fetch(np.arange(2))).images is view
    rows, table = np.array([3, 49, 0, 3]), unchanged(4)
    table["flip"], table["down"][2], table["right"][1] = [0, 1, 0, 1], 3, -2
    mean, std = np.full(3, 0.5), np.full(3, 0.25)
    ready = source.ready(source.fetch(rows))
    got = backend.make_batch(ready.images, ready.rows, table, mean, std)
    np.testing.assert_array_equal(backend.to_numpy(got), make_batch(x, rows, table, mean, std))


def test_an_image_of_too_many_values_is_refused(backend: Backend) -> None:
    if backend.name == "cuda":
        pytest.skip("a card's images take memory, and this one would take a gigabyte")
    wide = np.broadcast_to(np.uint8(0), (1, 1, 1 << 15, 1 << 15))
    one = np.ones(1)
    with pytest.raises(
        ValueError, match=r"\[make_batch\] images: expected fewer than 2\*\*30 values an image"
    ):
        backend.make_batch(wide, np.zeros(1, np.int64), unchanged(1), one, one)


def test_meanwhile_is_called_once_a_step(images: data.Images) -> None:
    model = models.create("lenet5", in_channels=3, num_classes=5, image_size=(16, 20), backend="numpy")
    trainer, epoch = Trainer(model, optim.SGD(lr=0.1)), batches(images).epoch(0)
    called = []
    trainer.step(*next(epoch), meanwhile=lambda: called.append(trainer.correct))
    assert called == [0]  # before the results of this step are there


def test_where_data_lie_is_a_matter_of_cuda() -> None:
    flags = ["--backend", "numpy", "--data-on", "host"]
    with pytest.raises(ValueError, match="--data-on host is for cuda, not for --backend numpy"):
        Config.resolve(vars(train.parse(flags)))


def test_a_run_learns_and_tests_the_same_wherever_its_data_lie(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.name != "cuda":
        pytest.skip("the CPU has one place for them")
    dataset = data.load("fashion-mnist-sample", limit_train=20, limit_test=3)
    asked = places_of_predictions(monkeypatch)
    losses, logits = [], []
    for place in ("host", "device", "auto"):
        flags = ["--model", "lenet5", "--backend", "cuda", "--batch-size", "8", "--augment", "flip,mixup=1",
                 "--test-every", "1", "--tta", "flip", "--data-on", place]  # fmt: skip
        experiment = Experiment(Config.resolve(vars(train.parse(flags))), dataset)
        kind = Streamed if place == "host" else Resident
        assert isinstance(experiment.batches.source, kind)
        losses.append([experiment.sums["loss"] for _ in experiment.steps(every=0)])
        logits.append(experiment.logits(dataset.test))
        assert asked.pop() is kind
        experiment.logits(dataset.train)
        assert asked.pop() is kind
    assert losses[0] == losses[1] == losses[2]
    np.testing.assert_array_equal(logits[0], logits[1], strict=True)
    np.testing.assert_array_equal(logits[0], logits[2], strict=True)


def places_of_predictions(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The kinds of the sources that predictions of an experiment read from, as they are made."""
    asked: list[type] = []

    def noted(*arguments: Any, source: Any, **options: Any) -> np.ndarray:
        asked.append(type(source))
        return predict_images(*arguments, source=source, **options)

    monkeypatch.setattr(experiment_module, "predict_images", noted)
    return asked


def test_images_that_are_judged_every_epoch_are_read_from_their_place(
    images: data.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One array has one source, whichever parts of it are used."""
    parts = [images.subset(np.arange(start, start + 10)) for start in (0, 10, 20)]
    shared = [data.Images(images.x, part.y, rows=np.arange(10)) for part in parts]
    made: list[np.ndarray] = []

    def noted(backend: Backend, x: np.ndarray, on: str, **options: Any) -> Any:
        made.append(x)
        return image_source(backend, x, on, **options)

    monkeypatch.setattr(experiment_module, "image_source", noted)
    config = Config.resolve(vars(train.parse(["--model", "lenet5", "--backend", "numpy"])))
    for of_train, validation, test in (parts, shared):
        made.clear()
        half = np.full(3, 0.5)
        dataset = data.Dataset("some", of_train, test, list("abcde"), half, half, "0", validation)
        experiment = Experiment(config, dataset)
        assert experiment.logits(validation).shape == (10, 5)
        expected = [of_train.x] if of_train.x is validation.x else [of_train.x, validation.x]
        assert list(map(id, made)) == list(map(id, expected))


class Noted(Resident):
    """Notes when images are sent for, and when they are used."""

    def __init__(self, x: np.ndarray) -> None:
        super().__init__(x)
        self.events: list[tuple[str, int]] = []

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        self.events.append(("sent for", int(rows[0])))
        return super().fetch(rows)

    def ready(self, fetched: np.ndarray) -> Any:
        self.events.append(("used", int(fetched[0])))
        return super().ready(fetched)


def test_the_next_images_of_a_test_come_while_the_ones_before_are_computed(
    images: data.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.create("lenet5", in_channels=3, num_classes=5, image_size=(16, 20), backend="numpy")
    statistics = [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]
    expected = predict_images(model, images, *statistics)
    noted = Noted(images.x)
    to_numpy = model.backend.to_numpy
    monkeypatch.setattr(
        model.backend, "to_numpy", lambda a: noted.events.append(("read", len(a))) or to_numpy(a)
    )
    got = predict_images(model, images, *statistics, batch_size=20, source=noted)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert noted.events == [
        ("sent for", 0), ("used", 0), ("sent for", 20), ("used", 20), ("sent for", 40), ("read", 20),
        ("used", 40), ("read", 20), ("read", 10),
    ]  # fmt: skip


class OneOf(Group):
    """One of several processes, which hears nothing from the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def gather(self, value: Any) -> list[Any]:
        return [value]


@pytest.mark.parametrize("size", [2, 4])
def test_all_processes_call_progress_equally_often(images: data.Images, size: int) -> None:
    """It waits for the others: three batches are no equal share of two or of four processes."""
    model = models.create("lenet5", in_channels=3, num_classes=5, image_size=(16, 20), backend="numpy")
    told: list[list[int]] = [[] for _ in range(min(size, 3))]
    for rank, calls in enumerate(told):
        group = OneOf(rank, size)
        predict_images(
            model, images, [0.5] * 3, [0.25] * 3, lambda *call, calls=calls: calls.append(call[0]),
            batch_size=20, group=group,
        )  # fmt: skip
    assert [len(calls) for calls in told] == [-(-3 // size)] * len(told)
