"""Fused operations against their compositions, and fused models against plain ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from minicnn import Trainer, models, optim
from minicnn.backends import Backend
from minicnn.fusion import fuse, unfuse
from minicnn.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Flatten,
    MaxPool2d,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)
from minicnn.testing import CASES, OPERATIONS, Case, assert_close, draw, run_backend

FUSED = [op for op, operation in OPERATIONS.items() if operation.before_kink]


def composed(backend: Backend) -> Backend:
    """The same backend with the contract's own compositions in place of its fused kernels."""
    defaults = {
        f"{op}_{way}": vars(Backend)[f"{op}_{way}"] for op in FUSED for way in ("forward", "backward")
    }
    twin = copy.copy(backend)
    twin.__class__ = type("Composed", (type(backend),), defaults)
    return twin


@pytest.mark.parametrize("case", [case for case in CASES if case.op in FUSED], ids=str)
def test_fused_operation_equals_its_composition(backend: Backend, case: Case, dtype: np.dtype) -> None:
    problem = draw(case, dtype)
    fused, plain = run_backend(backend, problem), run_backend(composed(backend), problem)
    for name, a in plain.outputs.items():
        assert_close(fused.outputs[name], a, problem.tolerance)
    for name, a in plain.gradients.items():
        assert_close(fused.gradients[name], a, problem.tolerance)


def every_pattern() -> Sequential:
    """A small model in which every fused operation has its place, and some layers have none."""
    return Sequential(
        {
            "stem": Conv2d(2, 4, 3, padding=1),
            "norm": BatchNorm2d(4),
            "relu": ReLU(),
            "pool": MaxPool2d(2),
            "block": Residual(
                Sequential(
                    {
                        "conv1": Conv2d(4, 4, 3, padding=1, bias=False),
                        "bn1": BatchNorm2d(4),
                        "relu1": ReLU(),
                        "conv2": Conv2d(4, 4, 3, padding=1, bias=False),
                        "bn2": BatchNorm2d(4),
                    }
                ),
                activation=ReLU(),
            ),
            "plain_block": Residual(Sequential(Conv2d(4, 4, 3, padding=1)), activation=ReLU()),
            "mixed": Parallel(
                Sequential(Conv2d(4, 3, 1), ReLU()),
                Sequential(Conv2d(4, 2, 3, padding=1), ReLU(), Conv2d(2, 2, 1)),
            ),
            "conv": Conv2d(5, 6, 3, padding=1),
            "conv_pool": MaxPool2d(2),
            "last": Conv2d(6, 6, 3, padding=1),
            "last_relu": ReLU(),
            "last_pool": MaxPool2d(2),
            "average": AvgPool2d(2),
            "flatten": Flatten(),
            "fc1": Dense(24, 7),
            "fc1_relu": ReLU(),
            "fc2": Dense(7, 3),
        },
        input_shape=(2, 32, 32),
    )


def gradients_of(
    model: Sequential, backend: Backend, x: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    logits, saved = model.forward(backend.asarray(x), True)
    labels = backend.asarray(y)
    loss, probs = backend.softmax_cross_entropy_forward(logits, labels)
    dx = model.backward(backend.softmax_cross_entropy_backward(probs, labels), saved)
    found = {"loss": loss, "logits": logits, "dx": dx, **model.named_gradients()}
    return {name: backend.to_numpy(a).copy() for name, a in found.items()}


def test_fused_model_gives_the_plain_models_gradients(backend: Backend, rng: np.random.Generator) -> None:
    model = every_pattern()
    model.bind(backend, seed=1, dtype="float64")
    state = model.state_dict()
    x, y = rng.standard_normal((4, 2, 32, 32)), rng.integers(0, 3, 4)
    plain = gradients_of(model, backend, x, y)
    after_plain = model.state_dict()
    model.load_state_dict(state)
    fuse(model)
    fused = gradients_of(model, backend, x, y)
    for name, a in plain.items():
        np.testing.assert_allclose(fused[name], a, rtol=1e-10, atol=1e-12, err_msg=name)
    for name, a in model.state_dict().items():
        np.testing.assert_allclose(a, after_plain[name], rtol=1e-12, err_msg=name)


def test_fusing_keeps_names_and_predictions(backend: Backend, rng: np.random.Generator) -> None:
    model = every_pattern()
    model.bind(backend, seed=1, dtype="float64")
    x = rng.standard_normal((3, 2, 32, 32))
    names, predictions = list(model.state_dict()), model.predict(x)
    fuse(model)
    assert list(model.state_dict()) == names
    np.testing.assert_allclose(model.predict(x), predictions, rtol=1e-11, atol=1e-12)


def test_every_fused_operation_is_used_and_marked() -> None:
    model = every_pattern()
    assert "runs as" not in str(model)
    fuse(model)
    marks = set(str(model).split())
    assert set(FUSED) <= marks
    unfuse(model)
    assert "runs as" not in str(model)


def test_fused_operations_are_what_runs(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused model reaches the backend's fused functions, a plain one only its primitives."""
    called: list[str] = []

    def spy(op: str) -> None:
        original = getattr(backend, f"{op}_forward")

        def forward(*args: object, **kwargs: object) -> object:
            called.append(op)
            return original(*args, **kwargs)

        monkeypatch.setattr(backend, f"{op}_forward", forward, raising=False)

    for op in FUSED:
        spy(op)
    model = every_pattern()
    model.bind(backend)
    x = backend.asarray(np.zeros((1, 2, 32, 32), np.float32))
    model.forward(x, False)
    assert called == []
    fuse(model)
    model.forward(x, False)
    assert set(called) >= set(FUSED)


@pytest.mark.parametrize(("wanted", "shown"), [(True, True), (False, False)], ids=["fused", "plain"])
def test_trainer_fuses_when_asked(backend: Backend, wanted: bool, shown: bool) -> None:
    model = models.create("lenet5", in_channels=1, num_classes=3, image_size=12, backend=backend.name)
    Trainer(model, optim.SGD(lr=0.1), fuse=wanted)
    assert ("conv2d_relu_max_pool2d" in str(model)) == shown


def test_fusing_twice_changes_nothing(backend: Backend) -> None:
    model = every_pattern()
    model.bind(backend)
    fuse(model)
    once = str(model)
    fuse(model)
    assert str(model) == once


def test_layers_added_up_in_another_order_are_not_fused() -> None:
    model = Sequential(
        ReLU(), Conv2d(1, 1, 3), AvgPool2d(2), BatchNorm2d(1), MaxPool2d(2), ReLU(), Flatten()
    )
    fuse(model)
    assert "runs as" not in str(model)
