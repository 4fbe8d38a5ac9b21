"""Captured steps: the same bits as steps that launch every kernel, and everything that changes is fresh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minicnn import Sequential, Trainer, data, optim
from minicnn.app.command_line import Diverged
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.settings import Config
from minicnn.backends import available_backends, get_backend
from minicnn.backends.device import device_of
from minicnn.ema import WeightAverage
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU
from minicnn.tally import NUMBERS, Tally

pytestmark = pytest.mark.skipif(available_backends()["cuda"] is not None, reason="no cuda backend")
STEPS = 6


def net(*, backend: str = "cuda", precision: str = "float32") -> Sequential:
    layers = (Conv2d(1, 8, 3, padding=1), BatchNorm2d(8), ReLU(), MaxPool2d(2), Dropout(0.4))
    return Sequential(*layers, Flatten(), Dense(72, 4), backend=backend, seed=1, precision=precision)


def batches(sizes: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    for size in sizes:
        yield rng.standard_normal((size, 1, 6, 6), "float32"), rng.integers(0, 4, size)


def trained(trainer: Trainer, sizes: list[int]) -> dict[str, np.ndarray]:
    """Weights, optimizer's state, average, gradients and losses after steps on batches of these sizes."""
    losses = [trainer.step(x, y) for x, y in batches(sizes)]
    model, average = trainer.model, trainer.average
    state = model.state_dict() | trainer.optimizer.state_dict(model)
    gradients = {f"grad.{name}": a for name, a in model.named_gradients().items()}
    averages = {f"average.{name}": a for name, a in (average.averages if average else {}).items()}
    for name, a in (gradients | averages).items():
        state[name] = trainer.backend.to_numpy(a).copy()
    return state | {"losses": np.array(losses), "numbers": np.array(trainer.tally.read()[:4])}


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (lambda: optim.AdamW(0.01), {"clip_norm": 0.5, "average": True}),
        (lambda: optim.SGD(0.1, momentum=0.9), {"precision": "bfloat16", "label_smoothing": 0.1}),
        (lambda: optim.RMSprop(0.01), {"precision": "tf32", "fuse": False}),
    ],
    ids=["adamw, clipped, averaged", "sgd, bfloat16", "rmsprop, tf32"],
)
def test_captured_steps_have_the_bits_of_launched_ones(optimizer: Any, options: dict[str, Any]) -> None:
    results = []
    for capture in (True, False):
        given = dict(options)
        model = net(precision=given.pop("precision", "float32"))
        average = WeightAverage(model, 0.9) if given.pop("average", False) else None
        trainer = Trainer(
            model, optimizer(), schedule=lambda step: 0.05 / (1 + step), average=average,
            capture=capture, **given,
        )  # fmt: skip
        results.append(trained(trainer, [8, 8, 8, 8, 3, 8, 8]))  # captured after two; 3 as it is
        captured = trainer._device_step.captured  # type: ignore[union-attr]
        assert (captured is not None) == capture
    assert_same_bits(*results)


def test_what_is_filled_before_a_replay_lies_outside_of_the_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a card a capture shares its memory with arrays that the step has freed by then."""
    made: list[Any] = []
    device_type = type(device_of(get_backend("cuda")))
    empty, capture = device_type.empty, device_type.capture

    def listed(self: Any, *given: Any) -> Any:
        made.append(empty(self, *given))
        return made[-1]

    def counted(self: Any, work: Any) -> Any:
        made.clear()
        return capture(self, work)

    monkeypatch.setattr(device_type, "empty", listed)
    monkeypatch.setattr(device_type, "capture", counted)
    trainer = Trainer(net(), optim.SGD(0.1))
    trained(trainer, [8, 8, 8])
    captured = trainer._device_step.captured  # type: ignore[union-attr]
    assert captured is not None
    draws = [array for *_, array in captured._draws]
    assert draws
    assert not {id(array) for array in made} & {id(array) for array in draws}


def test_a_captured_step_is_forgotten_where_something_else_is_asked_for() -> None:
    """Weights that are loaded, an optimizer that begins anew, another dropout, a frozen layer."""
    results = []
    for capture in (True, False):
        trainer = Trainer(net(), optim.SGD(0.1, momentum=0.5), capture=capture)
        state = trainer.model.state_dict()
        trained(trainer, [4] * 4)
        trainer.model.load_state_dict(state)
        trained(trainer, [4] * 4)
        trainer.optimizer.load_state_dict({}, trainer.model, 0)
        trained(trainer, [4] * 4)
        dropout = next(a for _, a in trainer.model.named_layers() if isinstance(a, Dropout))
        dropout.p = 0.7
        trained(trainer, [4] * 4)
        trainer.model.freeze("0")
        results.append(trained(trainer, [4] * 4))
    assert_same_bits(*results)


class Hosted(ReLU):
    """A layer that computes on the host."""

    def forward(self, x: Any, training: bool) -> tuple[Any, Any]:
        y, saved = super().forward(x, training)
        return self.backend.asarray(self.backend.to_numpy(y).copy()), saved


def test_steps_that_cannot_be_captured_go_on_and_say_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def trainer_of(layer: Any) -> Trainer:
        model = Sequential(Conv2d(1, 4, 3), layer, Flatten(), Dense(64, 4), backend="cuda", seed=1)
        return Trainer(model, optim.Adam(0.01))

    expected = trained(trainer_of(ReLU()), [4] * STEPS)
    with pytest.warns(RuntimeWarning, match="without capture: Hosted may compute on the host") as told:
        assert_same_bits(trained(trainer_of(Hosted()), [4] * STEPS), expected)
    assert len(told) == 1
    monkeypatch.setattr(Hosted, "__module__", "minicnn.layers.hosted")  # so that the capture itself fails
    with pytest.warns(RuntimeWarning, match=r"without capture: \[cuda\] captured work: expected none that"):
        assert_same_bits(trained(trainer_of(Hosted()), [4] * STEPS), expected)


@pytest.mark.parametrize("method", ["compute_gradients", "loss_of", "reduce_gradients"])
def test_an_overridden_part_of_a_step_is_called(method: str) -> None:
    calls = []

    def overridden(self: Trainer, *given: Any, **options: Any) -> Any:
        calls.append(method)
        return getattr(Trainer, method)(self, *given, **options)

    trainer = type("Own", (Trainer,), {method: overridden})(net(), optim.SGD(0.1))
    trained(trainer, [4] * 4)
    assert len(calls) == 4


def test_an_optimizer_of_ones_own_is_not_captured_and_may_hold_arrays() -> None:
    class Noting(optim.SGD):
        def step(self, model: Any) -> None:
            super().step(model)
            self.noted = np.zeros(2)

    trainer = Trainer(net(), Noting(0.1))
    with pytest.warns(RuntimeWarning, match="Noting may compute on the host"):
        trained(trainer, [4] * 4)


@pytest.mark.parametrize("labels", ["classes", "probabilities"])
def test_the_gradient_of_a_step_is_that_of_the_loss(labels: str) -> None:
    backend = get_backend("cuda")
    device = device_of(backend)
    assert device is not None
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((300, 37), "float32")
    y = rng.integers(0, 37, 300)
    y[::7] = -100
    options = {"label_smoothing": 0.1, "class_weight": backend.asarray(rng.random(37, "float32"))}
    if labels == "probabilities":
        y = rng.dirichlet(np.ones(37), 300).astype("float32")
    x, targets = backend.asarray(logits), backend.asarray(y)
    loss, probs = backend.softmax_cross_entropy_forward(x, targets, **options)
    expected = backend.softmax_cross_entropy_backward(probs, targets, **options)
    tally = Tally(backend, on_device=True)
    tally.begin(2.0, 5)
    dlogits = device.cross_entropy_gradient(x, targets, tally.there, **options)
    got, wanted = backend.to_numpy(dlogits), backend.to_numpy(expected)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-10)
    totals = tally.read()
    answers = backend.to_numpy(probs).argmax(1)
    correct = int((answers == (y if y.ndim == 1 else y.argmax(1))).sum())
    assert totals.last_loss == pytest.approx(float(loss), rel=1e-6)
    assert totals[:2] == (2.0 + totals.last_loss * 300, 5 + correct)
    assert totals.last_correct == correct


def test_the_tally_tells_the_first_loss_that_is_not_finite_and_the_first_wrong_label() -> None:
    backend = get_backend("cuda")
    device = device_of(backend)
    assert device is not None
    tally = Tally(backend, on_device=True)
    tally.classes = 3
    for value, label in ((0.0, 2), (np.nan, 0), (np.inf, 1), (0.0, 7), (0.0, -5)):
        logits = np.array([[value, 0, 0], [1, 0, 0]], np.float32)
        device.cross_entropy_gradient(
            backend.asarray(logits), backend.asarray(np.array([0, label])), tally.there
        )
    with pytest.raises(
        ValueError, match=r"\[softmax_cross_entropy\] labels: expected values from 0 to 2, got 7"
    ):
        tally.read()
    diverged = tally.read().diverged  # told once, so that a run may go on
    assert diverged is not None
    assert diverged[0] == 2
    assert np.isnan(diverged[1])
    with pytest.raises(ValueError, match=rf"tally: expected shape \({NUMBERS},\)"):
        device.cross_entropy_gradient(
            backend.asarray(logits), backend.asarray(np.array([0, 1])), backend.asarray(np.zeros(3))
        )


def test_a_captured_step_on_labels_that_are_no_classes_changes_nothing() -> None:
    trainer = Trainer(net(), optim.SGD(0.1))
    for x, y in batches([4] * STEPS):
        trainer.step(x, y)
    before = trainer.model.state_dict()
    with pytest.raises(ValueError, match="labels: expected values from 0 to 3, got 4"):
        trainer.step(x, np.array([0, 1, 4, 2]))
    assert_same_bits(trainer.model.state_dict(), before)


def experiment(*flags: str) -> Experiment:
    """A run of ten small batches on cuda."""
    given = ["--model", "lenet5", "--backend", "cuda", "--batch-size", "4", "--epochs", "1"]
    given += ["--validation", "0", "--optimizer", "sgd"]
    config = Config.resolve(vars(train.parse([*given, *flags])))
    return Experiment(config, data.load(config.dataset, limit_train=40, limit_test=10))


def test_a_run_reads_its_sums_now_and_then_and_has_them_all_at_the_end() -> None:
    """...and a checkpoint has those of its step."""
    rare, often = experiment(), experiment()
    seen = [rare.sums["images"] for _ in rare.steps(every=1e9)]
    assert seen == [4] * 10
    for step, _ in enumerate(often.steps(every=0), 1):
        assert often.sums["images"] == 4 * step
    for name in ("loss", "correct", "images"):
        assert rare.sums[name] == often.sums[name], name
    again = experiment()
    steps = again.steps(every=1e9)
    next(steps), next(steps), next(steps)
    assert again.sums["images"] == 4
    assert again.checkpoint().sums["images"] == 12


def test_a_run_that_diverges_names_the_batch_even_if_it_is_read_later() -> None:
    messages = []
    for every in (0.0, 1e9):
        run = experiment("--lr", "1e25", "--schedule", "constant")
        with pytest.raises(Diverged) as told:
            list(run.steps(every=every))
        messages.append(str(told.value))
        with pytest.raises(Diverged):
            run.checkpoint()
    assert messages[0] == messages[1]
    assert "epoch 1, batch " in messages[0]
