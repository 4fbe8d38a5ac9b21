"""Weight averages, test-time flips, early stopping and class weights: what each does, and on resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from minicnn import Trainer, checkpoint, data, evaluate, metrics, models, optim
from minicnn.app import report
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.prediction import predict_images
from minicnn.app.settings import Config
from minicnn.backends import Backend
from minicnn.data.split import balanced_class_weight
from minicnn.data.views import TTA, views
from minicnn.ema import WeightAverage
from minicnn.layers import BatchNorm2d, Conv2d, Dense, Dropout, Flatten, ReLU, Sequential
from minicnn.saved_model import load_model

SMALL = [
    "--model", "lenet5", "--backend", "numpy", "--threads", "1", "--epochs", "2", "--batch-size", "16",
    "--limit-train", "60", "--limit-test", "20", "--dataset", "fashion-mnist-sample",
]  # fmt: skip
AIDS = [
    "--ema", "0.9", "--tta", "flip", "--class-weight", "balanced", "--early-stop", "5",
]  # fmt: skip


def experiment(*flags: str) -> Experiment:
    config = Config.resolve(vars(train.parse([*SMALL, *flags])))
    images = data.load(config.dataset, limit_train=60, limit_test=20, validation=config.validation)
    return Experiment(config, images)


def go(run: Experiment, steps: int) -> Experiment:
    """Take so many steps, through the ends of epochs."""
    while steps:
        for _ in run.steps():
            steps -= 1
            if not steps:
                return run
        run.finish_epoch()
    return run


def net(backend: Backend | str) -> Sequential:
    return Sequential(
        Conv2d(1, 3, 3, bias=False), BatchNorm2d(3), ReLU(), Flatten(), Dense(3 * 16, 4),
        backend=backend, dtype="float64", seed=1,
    )  # fmt: skip


def training(model: Sequential, rng: np.random.Generator) -> Trainer:
    trainer = Trainer(model, optim.SGD(0.3, momentum=0.9))
    trainer.step(rng.normal(size=(8, 1, 6, 6)), rng.integers(0, 4, 8))
    return trainer


# ---- averages ----------------------------------------------------------------------------------------


def test_average_is_a_hand_loops(backend: Backend, rng: np.random.Generator) -> None:
    model = net(backend)
    average = WeightAverage(model, 0.5)
    expected: dict[str, np.ndarray] = {}
    for t in range(12):
        training(model, rng)
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        for name, now in model.state_dict().items():
            if t and name != "1.num_batches_tracked":
                expected[name] = decay * expected[name] + (1 - decay) * now
            else:
                expected[name] = now
    own = model.state_dict()
    with average.applied():
        averaged = model.state_dict()
    assert averaged["1.num_batches_tracked"] == 12
    for name, array in expected.items():
        np.testing.assert_allclose(averaged[name], array, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(model.state_dict()[name], own[name])
    assert not np.array_equal(averaged["1.running_var"], own["1.running_var"])


def test_average_is_torchs() -> None:
    """Torch's AveragedModel with the same decay, over ten made-up updates."""
    model = models.create("lenet5", in_channels=1, num_classes=4, image_size=28, backend="numpy")
    module = torch.nn.ParameterDict({name.replace(".", "_"): torch.nn.Parameter(torch.from_numpy(a.copy()))
                                     for name, a in model.state_dict().items()})  # fmt: skip
    theirs = torch.optim.swa_utils.AveragedModel(
        module, avg_fn=lambda average, now, t: torch.lerp(now, average, min(0.9, float((1 + t) / (10 + t))))
    )
    average = WeightAverage(model, 0.9)
    for t in range(10):
        for name, array in model.named_parameters().items():
            array += np.float32(0.1 * (t - 4))
            module[name.replace(".", "_")].data.copy_(torch.from_numpy(array))
        average.update()
        theirs.update_parameters(module)
    with average.applied():
        for name, array in model.state_dict().items():
            other = theirs.module[name.replace(".", "_")].detach().numpy()
            np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-6)


def test_average_can_be_put_back(backend: Backend, rng: np.random.Generator) -> None:
    model, other = net(backend), net(backend)
    average, again = WeightAverage(model, 0.9), WeightAverage(other, 0.9)
    for _ in range(3):
        training(model, rng)
        average.update()
    with average.applied():
        again.load(model.state_dict(), average.updates)
    other.load_state_dict(model.state_dict())
    for one, of in ((average, model), (again, other)):
        training(of, np.random.default_rng(5))
        one.update()
    with average.applied(), again.applied():
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], array)


def test_average_before_its_first_update_is_the_model() -> None:
    model = net("numpy")
    before = model.state_dict()
    with WeightAverage(model, 0.9).applied():
        np.testing.assert_array_equal(model.state_dict()["0.weight"], before["0.weight"])


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_average_needs_a_share(decay: float) -> None:
    with pytest.raises(ValueError, match="decay: expected a number between 0 and 1"):
        WeightAverage(net("numpy"), decay)


def test_averages_are_what_is_tested_and_saved(tmp_path: Path) -> None:
    run = go(experiment("--ema", "0.9"), 6)
    saved = run.checkpoint()
    for name, array in run.model.state_dict().items():
        np.testing.assert_array_equal(saved.training[name], array)
        assert not np.array_equal(saved.model[name], array)
    checkpoint.save(tmp_path / "c.safetensors", saved)
    _, model = load_model(tmp_path / "c.safetensors", "numpy")
    logits = predict_images(model, run.dataset.test.x, saved.mean, saved.std)
    np.testing.assert_array_equal(logits, run.logits(run.dataset.test))


def test_without_averages_nothing_is_saved_twice() -> None:
    assert go(experiment(), 2).checkpoint().training == {}


@pytest.mark.parametrize("before", [0, 2, 5])
def test_a_run_with_all_aids_goes_on_anywhere(before: int, tmp_path: Path) -> None:
    whole = go(experiment(*AIDS), 7)
    first = go(experiment(*AIDS), before)
    checkpoint.save(tmp_path / "c.safetensors", first.checkpoint())
    second = experiment(*AIDS)
    second.restore(tmp_path, checkpoint.load(tmp_path / "c.safetensors"))
    got, expected = go(second, 7 - before).checkpoint(), whole.checkpoint()
    for group in ("model", "training", "optimizer"):
        assert getattr(got, group).keys() == getattr(expected, group).keys() != set()
        for name, array in getattr(expected, group).items():
            np.testing.assert_array_equal(getattr(got, group)[name], array)
    for mine, theirs in zip(second.history, whole.history, strict=True):
        assert mine["validation_loss"] == theirs["validation_loss"]


def test_a_resumed_run_draws_the_masks_that_come_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropping(in_channels: int, num_classes: int, size: tuple[int, int]) -> Sequential:
        return Sequential(Flatten(), Dropout(0.5), Dense(in_channels * size[0] * size[1], num_classes))

    monkeypatch.setitem(models._BUILDERS, "lenet5", dropping)
    whole, first, second = go(experiment(), 3), go(experiment(), 2), experiment()
    checkpoint.save(tmp_path / "c.safetensors", first.checkpoint())
    second.restore(tmp_path, checkpoint.load(tmp_path / "c.safetensors"))
    expected = whole.model.state_dict()
    for name, array in go(second, 1).model.state_dict().items():
        np.testing.assert_array_equal(array, expected[name])


# ---- test-time flips ---------------------------------------------------------------------------------


def test_flip_is_the_mean_of_two_predictions(backend: Backend, rng: np.random.Generator) -> None:
    model = Sequential(Conv2d(2, 3, 3), ReLU(), Flatten(), Dense(3 * 4 * 5, 4), backend=backend)
    x = rng.integers(0, 256, (5, 2, 6, 7), dtype=np.uint8)
    mean, std = [0.3, 0.4], [0.2, 0.5]
    two = [predict_images(model, view, mean, std) for view in (x, np.ascontiguousarray(x[..., ::-1]))]
    flipped = predict_images(model, x, mean, std, tta="flip")
    np.testing.assert_allclose(flipped, (two[0] + two[1]) / 2, rtol=1e-6, atol=1e-7)
    assert not np.allclose(flipped, two[0])


def test_flip_shift_also_moves_by_a_pixel(rng: np.random.Generator) -> None:
    x = rng.integers(1, 256, (2, 1, 3, 4), dtype=np.uint8)
    down, up = np.zeros_like(x), np.zeros_like(x)
    down[:, :, 1:, 1:], up[:, :, :-1, :-1] = x[:, :, :-1, :-1], x[:, :, 1:, 1:]
    expected = [(share, image[..., ::step]) for share, image in ((0.25, x), (0.125, down), (0.125, up))
                for step in (1, -1)]  # fmt: skip
    got = list(views(x, "flip-shift"))
    assert [share for share, _ in got] == [share for share, _ in expected]
    for (_, mine), (_, image) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, image)


@pytest.mark.parametrize("tta", TTA)
def test_predictions_are_the_weighted_mean_over_the_views(tta: str, rng: np.random.Generator) -> None:
    model = Sequential(Conv2d(1, 3, 3), ReLU(), Flatten(), Dense(3 * 4 * 5, 4), backend="numpy")
    x = rng.integers(0, 256, (5, 1, 6, 7), dtype=np.uint8)
    pairs = list(views(x, tta))
    assert sum(share for share, _ in pairs) == 1
    expected = sum(share * predict_images(model, view, [0.3], [0.2]) for share, view in pairs)
    np.testing.assert_allclose(predict_images(model, x, [0.3], [0.2], tta=tta), expected, rtol=1e-5)


def test_evaluate_flips_as_training_did_unless_told(tmp_path: Path) -> None:
    run = go(experiment("--tta", "flip"), 3)
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, run.checkpoint())
    losses = {}
    for name, flags in {"as trained": [], "flip": ["--tta", "flip"], "none": ["--tta", "none"]}.items():
        out = tmp_path / name
        evaluate.main(["--checkpoint", str(file), "--backend", "numpy", "--out", str(out), *flags])
        losses[name] = json.loads((out / "report.json").read_text())["loss"]
    expected = metrics.cross_entropy(run.logits(run.dataset.test), run.dataset.test.y)
    assert losses["as trained"] == losses["flip"] != losses["none"]
    assert losses["flip"] == pytest.approx(expected, rel=1e-6)


# ---- early stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "stops"),
    [([], False), ([3.0, 2.0, 1.0], False), ([1.0, 2.0], False), ([1.0, 2.0, 1.5], True),
     ([1.0, 2.0, 0.5], False), ([1.0, 1.0, 1.0], True)],
)  # fmt: skip
def test_patience(losses: list[float], stops: bool) -> None:
    run = experiment("--early-stop", "2")
    run.history = [{"validation_loss": loss} for loss in losses]
    assert run.stopped_early is stops


def test_a_run_that_does_not_learn_ends_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write", lambda *_: None)
    flags = [*SMALL, "--epochs", "9", "--lr", "1e-30", "--early-stop", "2", "--out", str(tmp_path / "run")]
    train.main(flags)
    printed = capsys.readouterr().out
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(history) == 3
    assert "stopped early: the validation loss has not fallen for 2 epochs" in printed
    assert "the weights after epoch 1, with " in printed
    monkeypatch.setattr(report, "finish", lambda *_: None)
    train.main(["--resume", "--out", str(tmp_path / "run")])
    assert "all 3 epochs" in capsys.readouterr().out


# ---- class weights -----------------------------------------------------------------------------------


def test_balanced_weights_are_scikit_learns(rng: np.random.Generator) -> None:
    y = np.concatenate([np.arange(4), rng.choice(4, 100, p=[0.7, 0.2, 0.05, 0.05])])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y)
    np.testing.assert_allclose(balanced_class_weight(y, 4), expected)
    assert np.isfinite(balanced_class_weight(np.zeros(3, np.int64), 2)).all()


def test_balanced_weights_reach_the_loss() -> None:
    dataset = data.load("fashion-mnist-sample", limit_train=60, limit_test=20)
    rows = np.concatenate([np.flatnonzero(dataset.train.y == 0), np.flatnonzero(dataset.train.y == 1)[:2]])
    part = data.Dataset(
        "part", dataset.train.subset(rows), dataset.test, dataset.class_names, dataset.mean, dataset.std, ""
    )
    flags = [*SMALL, "--class-weight", "balanced"]
    weights = Experiment(Config.resolve(vars(train.parse(flags))), part).trainer.class_weight
    np.testing.assert_allclose(weights[:2], [8 / 60, 8 / 20], rtol=1e-6)
    np.testing.assert_allclose(weights[2:], 8 / 10, rtol=1e-6)  # 6 times that of the 6 images of class 0


@pytest.mark.parametrize(("smoothing", "accepted"), [("0.25", True), ("0.3", False)])
def test_smoothing_that_would_favour_a_rare_class_is_refused(smoothing: str, accepted: bool) -> None:
    """The best prediction is in proportion to weight times smoothed label: is it the image's own class?"""
    images = data.load("fashion-mnist-sample", limit_train=60, limit_test=20)
    rows = np.concatenate([np.flatnonzero(images.train.y == 0), np.flatnonzero(images.train.y == 1)[:1]])
    part = data.Dataset(
        "part", images.train.subset(rows), images.test, images.class_names[:2], images.mean, images.std, ""
    )
    flags = [*SMALL, "--class-weight", "balanced", "--label-smoothing", smoothing]
    config = Config.resolve(vars(train.parse(flags)))
    label = np.array([1 - float(smoothing) / 2, float(smoothing) / 2])
    best = balanced_class_weight(part.train.y, 2) * label
    assert (best.argmax() == 0) == accepted
    if accepted:
        assert Experiment(config, part).trainer.class_weight is not None
    else:
        with pytest.raises(
            ValueError, match=r"expected the largest of 2 classes to have less than .* times"
        ):
            Experiment(config, part)


# ---- settings ----------------------------------------------------------------------------------------


def test_tf32_is_a_setting_of_the_run() -> None:
    plain, rounded = (Config.resolve(vars(train.parse([*SMALL, *f]))) for f in ([], ["--tf32"]))
    assert rounded.precision == "tf32"
    with pytest.raises(ValueError, match=r"expected the run's own --precision float32, got tf32"):
        rounded.check_resumes(vars(plain))


def test_unknown_views_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[views\] tta: expected one of none, flip, flip-shift, got x$"):
        next(views(np.zeros((1, 1, 2, 2), np.uint8), "x"))


def test_settings_of_older_runs_are_the_defaults() -> None:
    config = Config.resolve(vars(train.parse(SMALL)))
    saved = {k: v for k, v in vars(config).items() if k not in ("ema", "tta", "early_stop", "class_weight")}
    config.check_resumes(saved)
    with pytest.raises(ValueError, match=r"expected the run's own --ema 0.0, got 0.9"):
        Config.resolve(vars(train.parse([*SMALL, "--ema", "0.9"]))).check_resumes(saved)
