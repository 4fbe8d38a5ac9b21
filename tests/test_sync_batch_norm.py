"""Batch norms that learn from the whole batch, however it is cut and whoever computes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minicnn import Trainer, distributed, models, optim, set_num_threads
from minicnn.backends import Backend
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, ReLU, Sequential
from scripts import workers


def net(backend: str, *, affine: bool = True, dtype: str = "float64", drop: float = 0.0) -> Sequential:
    return Sequential(
        Conv2d(1, 4, 3), BatchNorm2d(4, affine=affine), ReLU(), Conv2d(4, 4, 3, padding=1),
        BatchNorm2d(4, momentum=None), ReLU(), MaxPool2d(2), Flatten(), Dropout(drop), Dense(36, 3),
        backend=backend, dtype=dtype, seed=3,
    )  # fmt: skip


def batch() -> tuple[np.ndarray, np.ndarray]:
    """13 images whose mean is far from 0, so that wrong moments show."""
    generator = np.random.default_rng(5)
    return 5 + 3 * generator.normal(size=(13, 1, 8, 8)), generator.integers(0, 3, 13)


def resnet(backend: str) -> Sequential:
    return models.create(
        "resnet20", in_channels=1, num_classes=3, image_size=8, backend=backend, dtype="float64"
    )


@pytest.mark.parametrize(
    ("make", "fuse"),
    [(net, True), (net, False), (lambda backend: net(backend, affine=False), True), (resnet, True)],
)
def test_shards_train_as_the_whole_batch(
    make: Callable[[str], Sequential], fuse: bool, backend: Backend
) -> None:
    x, y = batch()
    found = []
    for shards in (1, 4, 16):  # some of 16 have no image, and at the end of resnet20 images have one pixel
        trainer = Trainer(
            make(backend.name), optim.SGD(lr=0.1, momentum=0.9), shards=shards, sync_batch_norm=True,
            fuse=fuse, class_weight=np.array([1, 2, 5]),
        )  # fmt: skip
        losses = [trainer.step(x, y) for _ in range(3)]
        found.append((losses, trainer.correct, trainer.model.state_dict()))
    for losses, correct, state in found[1:]:
        np.testing.assert_allclose(losses, found[0][0], rtol=1e-10)
        assert correct == found[0][1]
        for name, array in state.items():
            np.testing.assert_allclose(array, found[0][2][name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    x, y = batch()
    trainer = Trainer(net("numpy"), optim.SGD(lr=0.1), shards=4, sync_batch_norm=True)
    trainer.model.freeze("1")
    trainer.step(x, y)
    state = trainer.model.state_dict()
    np.testing.assert_array_equal(state["1.running_mean"], 0)
    assert state["4.running_mean"].any()


class Hidden(Layer):
    """A batch norm that the model's graph does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = BatchNorm2d(1)

    def named_children(self) -> list[tuple[str, Layer]]:
        return [("norm", self.norm)]

    def forward(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, object]:
        return self.norm.forward(x, training)


def test_what_cannot_be_is_refused() -> None:
    model = Sequential(Hidden(), Flatten(), Dense(64, 3), backend="numpy", dtype="float64")
    trainer = Trainer(model, optim.SGD(lr=0.1), shards=2, sync_batch_norm=True)
    with pytest.raises(
        ValueError, match=r"^\[Trainer\] sync_batch_norm: expected .*, got 0.norm inside a "
    ):
        trainer.step(*batch())
    trainer = Trainer(net("numpy"), optim.SGD(lr=0.1), shards=2, sync_batch_norm=True)
    x, y = batch()
    with pytest.raises(
        ValueError, match=r"^\[shards\] expected at least 2 images in a batch, since batch "
    ):
        trainer.step(x[:1], y[:1])
    trainer.step(x[:2], y[:2])  # one image a shard, which alone would be too few


@pytest.mark.parametrize("name", ["numpy", "cpp"])
def test_several_processes_have_the_bits_of_one(name: str, tmp_path: Path) -> None:
    for size in (1, 2, 4):
        assert workers.end(workers.start(size, tmp_path / "log", trained, tmp_path, name)) == [0] * size
    expected, *others = (
        np.load(tmp_path / f"ordered-{rank} of {size}.npz") for size in (1, 2, 4) for rank in range(size)
    )
    assert len(others) == 6
    for state in others:
        for key, array in expected.items():
            np.testing.assert_array_equal(state[key], array, err_msg=key)
    for key, array in np.load(tmp_path / "fast-1 of 2.npz").items():
        np.testing.assert_allclose(array, expected[key], rtol=1e-3, atol=1e-4, err_msg=key)


def trained(folder: Path, backend: str) -> None:
    """Save the state after three steps in float32, with dropout, with each way of summing."""
    set_num_threads(1)
    x, y = batch()
    x = x.astype(np.float32)
    with distributed.group() as group:
        for reduce in ("ordered", "fast"):
            model = net(backend, dtype="float32", drop=0.3)
            trainer = Trainer(model, optim.SGD(lr=0.05), shards=4, reduce=reduce, sync_batch_norm=True)
            for count in (13, 9, 12):
                trainer.step(x[:count], y[:count])
            np.savez(folder / f"{reduce}-{group.rank} of {group.size}.npz", **model.state_dict())
