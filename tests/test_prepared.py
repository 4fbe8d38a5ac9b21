"""What `predict` keeps on cpp: it is made once, serves while the weights stay, and never longer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS

from minicnn import InferenceSession, Trainer, optim
from minicnn.app.prediction import predict_images
from minicnn.backends import waking
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Flatten, ReLU, Sequential
from minicnn.ops.make_batch import normalized

needs_cpp = pytest.mark.skipif("cpp" not in BACKENDS, reason="graphs are prepared on the cpp backend")


def small(backend: str = "cpp") -> Sequential:
    return Sequential(
        Conv2d(3, 8, 3, padding=1), BatchNorm2d(8), ReLU(), Flatten(), Dense(288, 4),
        backend=backend, seed=2, input_shape=(3, 6, 6),
    )  # fmt: skip


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 6, 6)).astype(np.float32)


def a_step(model: Any) -> None:
    Trainer(model, optim.SGD(lr=0.1)).step(images(), np.zeros(5, np.int64))


def statistics_alone(model: Any) -> None:
    model.forward(model.backend.asarray(images()), training=True)


def an_optimizer_alone(model: Any) -> None:
    weight = model.children["4"].params["weight"]
    model.backend.sgd_step(
        [weight], [weight.clone()], [weight.clone()], lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False
    )


def other_arrays(model: Any) -> None:
    params = model.children["0"].params
    params["bias"] = params["bias"] + 1


def in_place(model: Any) -> None:
    model.children["4"].params["bias"].add_(1)


def loaded(model: Any) -> None:
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})


def another_option(model: Any) -> None:
    model.children["1"].eps = 0.5


def another_precision(model: Any) -> None:
    model.set_precision("bfloat16")


def another_layer(model: Any) -> None:
    model.children["4"] = copy.deepcopy(model.children["4"])
    model.children["4"].params["bias"].add_(1)


CHANGES: list[Callable[[Any], None]] = [
    a_step, statistics_alone, an_optimizer_alone, other_arrays, in_place, loaded, another_option,
    another_precision, another_layer,
]  # fmt: skip


@needs_cpp
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed(change: Callable[[Any], None]) -> None:
    model, x = small(), images()
    before = model.predict(x)
    change(model)
    after = model.predict(x)
    assert not np.array_equal(after, before)
    fresh = InferenceSession(model, precision=model.precision)
    np.testing.assert_array_equal(after, fresh.run(x))


@needs_cpp
def test_it_is_made_once_and_dropped_in_training() -> None:
    model, x = small(), images()
    first = model.predict(x)
    kept = model.prepared(x.shape)
    assert kept is not None
    np.testing.assert_array_equal(model.predict(x, batch_size=2), first)
    assert model.prepared((1, 3, 6, 6)) is kept
    assert copy.deepcopy(model)._prepared is None
    model.graph(training=True)
    assert model._prepared is None


@needs_cpp
def test_images_that_do_not_fit_are_refused_in_the_operation_s_words() -> None:
    model = small()
    model.predict(images())
    with pytest.raises(ValueError, match=r"\[conv2d\] weight: expected C=2, got C=3"):
        model.predict(images()[:, :2])
    assert model.predict(images(0)).shape == (0, 4)
    assert model.prepared((0, 3, 6, 6)) is None


@needs_cpp
def test_bytes_of_a_test_set_come_out_as_from_a_session() -> None:
    model, statistics = small(), ([0.1, 0.5, 0.7], [0.2, 0.3, 0.1])
    x = np.random.default_rng(1).integers(0, 256, (7, 3, 6, 6), dtype=np.uint8)
    expected = InferenceSession(model).run(normalized(x, *statistics, np.float32))
    np.testing.assert_array_equal(predict_images(model, x, *statistics), expected)


def test_other_backends_prepare_nothing() -> None:
    assert small("numpy").prepared((5, 3, 6, 6)) is None


def test_waking_is_measured_once_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CACHE", str(tmp_path / "cache"))
    measured = iter([(1e-6, 4e-5), (2e-6, 5e-5)])
    module: Any = ModuleType("compiled")
    module.measure_waking = lambda: next(measured)
    for expected in ((1e-6, 4e-5), (1e-6, 4e-5)):  # the second process reads what the first one kept
        waking.waking.cache_clear()
        assert waking.waking(module) == expected
    file = tmp_path / "cache" / waking.FILE
    file.write_text(file.read_text().replace("1e-06", "-1.0"))
    waking.waking.cache_clear()
    assert waking.waking(module) == (2e-6, 5e-5)
    waking.waking.cache_clear()
