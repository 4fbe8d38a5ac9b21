"""Copies and pickles of models and trainers, on every backend: they go on with the same bits."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import joblib
import numpy as np
import pytest

from minicnn import Trainer, optim, schedules
from minicnn.backends import Backend, cuda_build, get_backend
from minicnn.backends.numpy_backend import NumpyBackend
from minicnn.ema import WeightAverage
from minicnn.layers import (
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def dumped(value: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


WAYS = pytest.mark.parametrize("again", [copy.deepcopy, pickled, dumped])


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(step)
    return rng.standard_normal((4, 3, 8, 8)).astype(np.float32), rng.integers(0, 4, 4)


def net(backend: Backend) -> Sequential:
    """A residual block, batch norms, and a layer that draws numbers."""
    body = Sequential(Conv2d(8, 8, 3, padding=1), BatchNorm2d(8))
    parts = [Conv2d(3, 8, 3), BatchNorm2d(8), ReLU(), Residual(body), ReLU(), MaxPool2d(2)]
    return Sequential(*parts, Dropout(0.1), Flatten(), Dense(72, 4), backend=backend)


def assert_equal_states(a: Sequential, b: Sequential) -> None:
    other = b.state_dict()
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@WAYS
def test_a_copied_model_predicts_the_same_and_is_its_own(
    backend: Backend, again: Callable[[Any], Any]
) -> None:
    model = net(backend)
    expected = model.predict(batch(0)[0])
    twin = again(model)
    assert twin.backend is backend
    np.testing.assert_array_equal(twin.predict(batch(0)[0]), expected)
    Trainer(twin, optim.SGD(lr=0.1)).step(*batch(0))
    np.testing.assert_array_equal(model.predict(batch(0)[0]), expected)
    assert not np.array_equal(twin.predict(batch(0)[0]), expected)


@WAYS
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_training_goes_on_with_the_same_bits(
    backend: Backend, name: str, again: Callable[[Any], Any]
) -> None:
    schedule = schedules.create("onecycle", lr=0.01, total_steps=5)
    trainer = Trainer(net(backend), optim.create(name, 0.01), schedule=schedule, clip_norm=1.0)
    for step in range(2):
        trainer.step(*batch(step))
    twin = again(trainer)
    for step in range(2, 4):
        assert twin.step(*batch(step)) == trainer.step(*batch(step))
    assert_equal_states(twin.model, trainer.model)
    assert twin.optimizer.steps == 4
    for key, a in twin.optimizer.state_dict(twin.model).items():
        np.testing.assert_array_equal(a, trainer.optimizer.state_dict(trainer.model)[key], err_msg=key)


def test_an_average_of_weights_is_copied_with_its_model(backend: Backend) -> None:
    model = net(backend)
    average = WeightAverage(model, 0.9)
    average.update()
    twin = pickled(average)
    Trainer(model, optim.SGD(lr=0.1)).step(*batch(0))
    Trainer(twin.model, optim.SGD(lr=0.1)).step(*batch(0))
    for one in (average, twin):
        one.update()
        one._swap()
    assert_equal_states(model, twin.model)


@pytest.mark.parametrize("name", schedules.NAMES)
def test_schedules_can_be_pickled(name: str) -> None:
    schedule = schedules.create(name, lr=0.1, total_steps=9, warmup=0.2)
    assert [pickled(schedule)(k) for k in range(10)] == [schedule(k) for k in range(10)]


def test_a_layer_at_several_places_stays_one_layer(backend: Backend) -> None:
    inner = Sequential({"drop": Dropout(0.5)})
    twin = pickled(Sequential({"a": inner, "b": inner}, backend=backend))
    assert twin.children["a"] is twin.children["b"]


class Slow(NumpyBackend):
    """A backend of a user's own, with the name of the one that it changes."""

    name: ClassVar[str] = "numpy"


def test_backends_are_fetched_by_their_name(backend: Backend) -> None:
    assert copy.copy(backend) is copy.deepcopy(backend) is pickled(backend) is backend
    assert type(pickled(Slow())) is Slow


def test_the_cuda_backend_keeps_its_tf32_switch() -> None:
    if not cuda_build.emulated() and cuda_build.missing_gpu():
        pytest.skip("needs a GPU, or MINICNN_CUDA_EMULATION=1")
    from minicnn.backends.cuda_backend import allow_tf32

    backend: Any = get_backend("cuda")
    try:
        allow_tf32(backend, True)
        data = pickle.dumps(backend)
        allow_tf32(backend, False)
        assert pickle.loads(data) is backend
        assert backend._module.tf32()
    finally:
        allow_tf32(backend, False)
