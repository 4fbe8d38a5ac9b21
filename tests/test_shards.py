"""A batch that is cut into shards has the gradients of the whole one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from minicnn import Trainer, data, optim
from minicnn.data.augment import Augment
from minicnn.distributed import ALONE, Group, layout
from minicnn.distributed.shards import Shards
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, ReLU, Sequential


class Rank(Group):
    """A rank that is alone all the same."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size = rank, size


def rows_of(parts: list[slice], images: int) -> list[int]:
    return [row for part in parts for row in range(images)[part]]


@pytest.mark.parametrize("images", [0, 1, 5, 64, 101])
def test_every_image_is_in_one_shard_and_every_shard_of_one_rank(images: int) -> None:
    cut = Shards(8, ALONE).cut(images)
    assert rows_of(cut, images) == list(range(images))
    lengths = [part.stop - part.start for part in cut]
    assert max(lengths) - min(lengths) <= 1
    for size in (1, 2, 4, 8):
        parts = [Shards(8, Rank(rank, size)).part(images) for rank in range(size)]
        assert rows_of(parts, images) == list(range(images))


@pytest.mark.parametrize(
    ("count", "size", "message"),
    [
        (3, 1, "[shards] expected a power of two, got 3"),
        (0, 1, "[shards] expected a power of two, got 0"),
        (4, 3, "[shards] processes: expected 1, 2, 4, 8, 16, … of them, got 3"),
        (2, 4, "[shards] expected at least one for each of 4 processes, got 2; a run keeps the number "),
    ],
)
def test_shards_that_cannot_be(count: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Shards(count, Rank(0, size))


def net(*, norm: bool) -> Sequential:
    middle = [BatchNorm2d(4)] if norm else []
    layers = [Conv2d(1, 4, 3), *middle, ReLU(), Flatten(), Dropout(0.0), Dense(144, 3)]
    return Sequential(*layers, backend="numpy", dtype="float64", seed=3)


@pytest.mark.parametrize("labels", ["classes", "probabilities"])
def test_gradients_of_shards_add_up_to_those_of_the_batch(labels: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(13, 1, 8, 8))
    y = rng.integers(0, 3, 13) if labels == "classes" else rng.dirichlet(np.ones(3), 13)
    found = []
    for shards in (1, 4, 16):
        trainer = Trainer(
            net(norm=False), optim.SGD(lr=0.5), shards=shards, class_weight=np.array([1, 2, 5]),
            label_smoothing=0.1,
        )  # fmt: skip
        losses = [trainer.step(x, y) for _ in range(3)]
        found.append((losses, trainer.correct, trainer.model.state_dict()))
    for losses, correct, state in found[1:]:
        np.testing.assert_allclose(losses, found[0][0], rtol=1e-12)
        assert correct == found[0][1]
        for name, array in state.items():
            np.testing.assert_allclose(array, found[0][2][name], rtol=1e-10, atol=1e-12)


def test_gradients_that_are_summed_where_they_lie_and_those_in_a_row(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch leaves the last shard but one, or none of them, without images."""
    batches = [(rng.normal(size=(n, 1, 8, 8)), rng.integers(0, 3, n)) for n in (9, 3, 8)]
    found = []
    for large, bucket in ((1 << 16, 1 << 18), (20, 30)):
        monkeypatch.setattr(layout, "LARGE", large)
        monkeypatch.setattr(layout, "BUCKET", bucket)
        for kind in (Trainer, Halving):
            trainer = kind(net(norm=False), optim.SGD(lr=0.5), shards=4)
            for x, y in batches:
                trainer.step(x, y)
            found.append(trainer.model.state_dict())
    assert [bucket.is_large for bucket in layout.Layout(trainer.model).buckets] == [True, True]
    for plain, halving in zip(found[::2], found[1::2], strict=True):
        for name, array in plain.items():
            np.testing.assert_array_equal(array, found[0][name])
            np.testing.assert_array_equal(halving[name], found[1][name])
            assert not np.array_equal(array, halving[name])


class Halving(Trainer):
    """Changes gradients after the backward pass: they must not have been summed before."""

    def compute_gradients(self, *arguments: Any, **named: Any) -> float:
        loss = super().compute_gradients(*arguments, **named)
        self.backend.scale(list(self.model.named_gradients().values()), 0.5)
        return loss


def test_mixed_labels_and_shards_in_which_no_label_counts(rng: np.random.Generator) -> None:
    x, mixed = rng.normal(size=(8, 1, 8, 8)), rng.dirichlet(np.ones(3), 8)
    unmixed, ignored = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 2, 0, -100, -100, -100, -100])

    def trainer(shards: int) -> Trainer:
        return Trainer(net(norm=False), optim.SGD(lr=0.5), shards=shards, class_weight=np.array([1, 2, 9]))

    one, two = trainer(1), trainer(2)
    expected = one.step(x, mixed)
    assert two.step(x, mixed, batch_labels=unmixed) == pytest.approx(expected, rel=1e-12)
    assert two.step(x, ignored) == pytest.approx(one.step(x, ignored), rel=1e-10)
    for name, array in one.model.state_dict().items():
        np.testing.assert_allclose(two.model.state_dict()[name], array, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("images", "labels", "whole", "message"),
    [
        (
            6,
            [0] * 6,
            [0] * 4,
            "expected this process's 4 rows of a batch of 4 images, which has at least 1, got 6 and 6",
        ),
        (5, [0] * 4, None, "y: expected 5 labels, one an image, got 4"),
        (0, [], None, "which has at least 1, got 0 and 0"),
        (2, [0, 3], None, "y: expected labels from 0 to 2, got others"),
    ],
)
def test_wrong_batches_are_refused(
    images: int, labels: list[int], whole: list[int] | None, message: str
) -> None:
    trainer = Trainer(net(norm=False), optim.SGD(lr=0.5), shards=2, class_weight=np.array([1, 2, 5]))
    with pytest.raises(ValueError, match=message):
        trainer.step(
            np.zeros((images, 1, 8, 8)), np.array(labels, np.int64),
            batch_labels=None if whole is None else np.array(whole),
        )  # fmt: skip


def test_batch_norm_keeps_the_mean_of_its_shards_statistics(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(12, 1, 8, 8)), rng.integers(0, 3, 12)
    sharded, means, variances = Trainer(net(norm=True), optim.SGD(lr=0.1), shards=4), [], []
    for rows in np.split(np.arange(12), 4):
        alone = Trainer(net(norm=True), optim.SGD(lr=0.1))
        alone.compute_gradients(x[rows], y[rows])
        means.append(alone.model.state_dict()["1.running_mean"])
        variances.append(alone.model.state_dict()["1.running_var"])
    sharded.step(x, y)
    state = sharded.model.state_dict()
    np.testing.assert_allclose(state["1.running_mean"], np.mean(means, axis=0), rtol=1e-12)
    np.testing.assert_allclose(state["1.running_var"], np.mean(variances, axis=0), rtol=1e-12)
    assert state["1.num_batches_tracked"] == 1


def test_a_shard_that_batch_norm_cannot_learn_from_is_refused() -> None:
    trainer = Trainer(net(norm=True), optim.SGD(lr=0.1), shards=4)
    message = r"\[shards\] expected at least 2 images in each of 4 shards, since batch norm .* a batch of 7"
    with pytest.raises(ValueError, match=message):
        trainer.step(np.zeros((7, 1, 8, 8)), np.zeros(7, np.int64))
    trainer.model.freeze("1")
    trainer.step(np.zeros((7, 1, 8, 8)), np.zeros(7, np.int64))


def test_dropout_draws_for_each_shard_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, masks = Dropout(0.5), []
    model = Sequential(Flatten(), layer, Dense(4, 2), backend="numpy")
    before = layer.generator.bit_generator.state
    backend = model.backend
    forward = backend.dropout_forward
    monkeypatch.setattr(
        backend, "dropout_forward", lambda x, mask, *, p: masks.append(mask.copy()) or forward(x, mask, p=p)
    )
    for _ in range(2):
        trainer = Trainer(model, optim.SGD(lr=0.0), shards=2)
        for _ in range(2):
            trainer.step(np.ones((32, 1, 2, 2), np.float32), np.zeros(32, np.int64))
    assert layer.generator.bit_generator.state == before
    assert len({mask.tobytes() for mask in masks[:4]}) == 4
    assert [mask.tobytes() for mask in masks[:4]] == [mask.tobytes() for mask in masks[4:]]


@pytest.mark.parametrize("text", ["none", "flip,contrast=0.3", "mixup=0.4,cutmix=1"])
def test_ranks_make_the_rows_of_the_whole_batch(text: str, rng: np.random.Generator) -> None:
    images = data.Images(rng.integers(0, 256, (21, 1, 6, 6), np.uint8), rng.integers(0, 3, 21))

    def batches(shards: Shards | None) -> data.Batches:
        return data.Batches(
            images, 8, mean=[0.4], std=[0.3], augment=Augment.parse(text), num_classes=3,
            part=shards and shards.part,
        )  # fmt: skip

    whole = list(batches(None).epoch(1))
    for size in (2, 8):
        parts = [batches(Shards(8, Rank(rank, size))).epoch(1) for rank in range(size)]
        for number, (x, y) in enumerate(whole):
            pairs = [next(part) for part in parts]
            np.testing.assert_array_equal(np.concatenate([pair[0] for pair in pairs]), x)
            np.testing.assert_array_equal(np.concatenate([pair[1] for pair in pairs]), y)
            assert {len(part.batch_labels) for part in parts} == {len(x)}, number
