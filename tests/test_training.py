"""Whole training steps: the losses and weights that torch gives, and the same bits every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from minicnn import Trainer, models, optim, schedules
from minicnn.backends import Backend
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Flatten, MaxPool2d, ReLU, Residual, Sequential
from minicnn.torch_reference import to_torch

STEPS, BATCH, SIDE, CLASSES = 10, 8, 12, 5


def residual_net(backend: Backend, dtype: str, **_: Any) -> Sequential:
    """Batch norm and a residual block.

    The convolutions before a batch norm have no bias: its gradient would be nothing but rounding errors,
    which Adam would make as large as any other gradient.
    """
    body = Sequential(Conv2d(6, 6, 3, padding=1, bias=False), BatchNorm2d(6))
    return Sequential(
        Conv2d(2, 6, 3, padding=1, bias=False), BatchNorm2d(6), ReLU(), MaxPool2d(2),
        Residual(body, activation=ReLU()), MaxPool2d(2), Flatten(), Dense(6 * 3 * 3, CLASSES),
        backend=backend, dtype=dtype, seed=4,
    )  # fmt: skip


def named(name: str) -> Callable[..., Sequential]:
    def make(backend: Backend, dtype: str, seed: int = 4) -> Sequential:
        return models.create(
            name,
            in_channels=2,
            num_classes=CLASSES,
            image_size=SIDE,
            backend=backend,
            dtype=dtype,
            seed=seed,
        )

    return make


MODELS = {"lenet5": named("lenet5"), "simple_cnn": named("simple_cnn"), "residual": residual_net}


class Recipe(NamedTuple):
    """The same way of training for both sides."""

    optimizer: Callable[[], optim.Optimizer]
    torch_optimizer: Callable[[Any], torch.optim.Optimizer]
    schedule: str | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    weighted: bool = False


LR = 0.05
RECIPES = {
    "sgd": Recipe(
        lambda: optim.SGD(lr=LR, momentum=0.9), lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9)
    ),
    "sgd-clipped-smoothed-weighted": Recipe(
        lambda: optim.SGD(lr=LR, momentum=0.9, nesterov=True, weight_decay=1e-2),
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, nesterov=True, weight_decay=1e-2),
        clip_norm=0.5, label_smoothing=0.1, weighted=True,
    ),
    "adamw-onecycle": Recipe(
        lambda: optim.AdamW(lr=1e-3), lambda p: torch.optim.AdamW(p, lr=1e-3), schedule="onecycle"
    ),
}  # fmt: skip


def batches(dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(11)
    return [
        (rng.standard_normal((BATCH, 2, SIDE, SIDE)).astype(dtype), rng.integers(0, CLASSES, BATCH))
        for _ in range(STEPS)
    ]


CLASS_WEIGHT = np.linspace(0.5, 1.5, CLASSES)


class Run(NamedTuple):
    losses: list[float]
    state: dict[str, np.ndarray]


def train(model: Sequential, recipe: Recipe, *, fuse: bool = True) -> Run:
    rates = recipe.schedule and schedules.create(recipe.schedule, lr=LR, total_steps=STEPS)
    trainer = Trainer(
        model, recipe.optimizer(), schedule=rates, clip_norm=recipe.clip_norm,
        label_smoothing=recipe.label_smoothing, class_weight=CLASS_WEIGHT if recipe.weighted else None,
        fuse=fuse,
    )  # fmt: skip
    losses = [trainer.step(x, y) for x, y in batches(model.dtype)]
    return Run(losses, model.state_dict())


def train_in_torch(module: torch.nn.Module, recipe: Recipe, dtype: str) -> Run:
    optimizer = recipe.torch_optimizer(module.parameters())
    rates = recipe.schedule and schedules.create(recipe.schedule, lr=LR, total_steps=STEPS)
    weight = torch.tensor(CLASS_WEIGHT, dtype=getattr(torch, dtype)) if recipe.weighted else None
    losses = []
    for step, (x, y) in enumerate(batches(dtype)):
        if rates:
            optimizer.param_groups[0]["lr"] = rates(step)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            module(torch.from_numpy(x)), torch.from_numpy(y),
            weight=weight, label_smoothing=recipe.label_smoothing,
        )  # fmt: skip
        loss.backward()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    return Run(losses, {name: a.numpy() for name, a in module.state_dict().items()})


def distance(state: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The greatest difference between two states, each array relative to its own norm."""
    norms = [
        np.linalg.norm(a.astype(np.float64) - other[name]) / max(np.linalg.norm(other[name]), 1e-300)
        for name, a in state.items()
    ]
    return float(max(norms))


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_ten_steps_are_torchs(
    backend: Backend, make: Callable[..., Sequential], recipe: Recipe, fuse: bool
) -> None:
    model = make(backend, "float64")
    expected = train_in_torch(to_torch(model), recipe, "float64")
    actual = train(model, recipe, fuse=fuse)
    np.testing.assert_allclose(actual.losses, expected.losses, rtol=1e-11)
    assert actual.state.keys() == expected.state.keys()
    assert distance(actual.state, expected.state) < 1e-11


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_ten_steps_in_float32_stay_near_float64(backend: Backend, make: Callable[..., Sequential]) -> None:
    """Rounding grows from step to step on every implementation, so torch's own float32 sets the bound.

    A factor of ten leaves room for another order of summation.  If rounding ever moved a value to the other
    side of a kink, the two could not stay as near as this.
    """
    recipe = RECIPES["sgd"]
    model, exact = make(backend, "float32"), make(backend, "float64")
    exact.load_state_dict(model.state_dict())
    theirs = train_in_torch(to_torch(model), recipe, "float32")
    mine = train(model, recipe)
    reference = train(exact, recipe)
    least = 10 * np.finfo(np.float32).eps
    allowed = 10 * max(distance(theirs.state, reference.state), least)
    assert distance(mine.state, reference.state) < allowed
    np.testing.assert_allclose(mine.losses, reference.losses, rtol=1e-4)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_second_run_gives_the_same_bits(
    backend: Backend, make: Callable[..., Sequential], fuse: bool
) -> None:
    one, two = (train(make(backend, "float32"), RECIPES["adamw-onecycle"], fuse=fuse) for _ in range(2))
    assert one.losses == two.losses
    for name, a in one.state.items():
        assert a.tobytes() == two.state[name].tobytes(), name


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_same_bits_for_any_number_of_threads(
    backend: Backend, make: Callable[..., Sequential], threads: Callable[[int], None]
) -> None:
    if backend.name == "numpy":
        pytest.skip("NumPy's BLAS orders its sums by the number of threads")
    runs = []
    for n in (1, 2, 3):
        threads(n)
        runs.append(train(make(backend, "float32"), RECIPES["sgd"]))
    for other in runs[1:]:
        assert other.losses == runs[0].losses
        for name, a in runs[0].state.items():
            assert a.tobytes() == other.state[name].tobytes(), name


def test_training_learns_a_small_batch_by_heart(backend: Backend) -> None:
    x, y = batches("float32")[0]
    trainer = Trainer(MODELS["lenet5"](backend, "float32"), optim.Adam(lr=3e-3))
    losses = [trainer.step(x, y) for _ in range(60)]
    assert losses[-1] < 0.05 * losses[0]
    assert trainer.correct == BATCH


def test_step_takes_host_and_backend_arrays(backend: Backend) -> None:
    x, y = batches("float32")[0]
    losses = []
    for images, labels in ((x, y), (backend.asarray(x), backend.asarray(y))):
        trainer = Trainer(MODELS["lenet5"](backend, "float32"), optim.SGD(lr=0.1))
        loss = trainer.step(images, labels)
        assert type(loss) is float
        losses.append(loss)
    assert losses[0] == losses[1]


def test_correct_counts_the_right_predictions(backend: Backend) -> None:
    x, y = batches("float32")[0]
    model = MODELS["lenet5"](backend, "float32")
    expected = int((model.predict(x).argmax(axis=1) == y).sum())
    trainer = Trainer(model, optim.SGD(lr=0.1))
    trainer.step(x, y)
    assert trainer.correct == expected
    everything = model.predict(x).argmax(axis=1)
    trainer.step(x, everything)
    assert trainer.correct == BATCH


def test_probability_labels_train_as_one_hot_labels(backend: Backend) -> None:
    x, y = batches("float64")[0]
    states = []
    for labels in (y, np.eye(CLASSES)[y]):
        model = MODELS["lenet5"](backend, "float64")
        Trainer(model, optim.SGD(lr=0.1)).step(x, labels)
        states.append(model.state_dict())
    assert distance(*states) < 1e-13


def test_compute_gradients_leaves_the_weights(backend: Backend) -> None:
    x, y = batches("float32")[0]
    model = MODELS["lenet5"](backend, "float32")
    before = model.state_dict()
    trainer = Trainer(model, optim.SGD(lr=0.1))
    loss = trainer.compute_gradients(x, y)
    assert loss > 0
    assert model.named_gradients().keys() == model.named_parameters().keys()
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_reduce_gradients_stands_between_backward_and_the_optimizer(backend: Backend) -> None:
    class Frozen(Trainer):
        def reduce_gradients(self, grads: dict[str, Any]) -> None:
            assert grads.keys() == self.model.named_parameters().keys()
            self.backend.scale(list(grads.values()), 0.0)

    x, y = batches("float32")[0]
    model = MODELS["lenet5"](backend, "float32")
    before = model.state_dict()
    Frozen(model, optim.SGD(lr=0.1)).step(x, y)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_schedule_sets_the_rate_of_each_step(backend: Backend) -> None:
    x, y = batches("float32")[0]
    seen: list[int] = []

    def schedule(step: int) -> float:
        seen.append(step)
        return 0.25 / (step + 1)

    optimizer = optim.SGD(lr=9.0)
    trainer = Trainer(MODELS["lenet5"](backend, "float32"), optimizer, schedule=schedule)
    rates = []
    for _ in range(3):
        trainer.step(x, y)
        rates.append(optimizer.lr)
    assert seen == [0, 1, 2]
    assert rates == [0.25, 0.125, 0.25 / 3]


def test_images_of_another_size_are_refused(backend: Backend) -> None:
    trainer = Trainer(MODELS["lenet5"](backend, "float32"), optim.SGD(lr=0.1))
    with pytest.raises(ValueError, match=r"^\[conv2d\] weight: expected C=3, got C=2$"):
        trainer.step(np.zeros((2, 3, SIDE, SIDE), np.float32), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"^\[softmax_cross_entropy\] labels: expected values from 0 to 4"):
        trainer.step(np.zeros((1, 2, SIDE, SIDE), np.float32), np.array([5]))


def test_clip_norm_must_be_positive() -> None:
    model = Sequential(Flatten(), Dense(4, 2), backend="numpy")
    with pytest.raises(ValueError, match=r"^\[Trainer\] clip_norm: expected a number above 0, got 0$"):
        Trainer(model, optim.SGD(lr=0.1), clip_norm=0)
