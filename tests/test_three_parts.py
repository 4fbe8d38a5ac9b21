"""Training, validation and test images are three things: what learns, what chooses, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicnn import checkpoint, data, metrics
from minicnn.app import report
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.prediction import predict_images
from minicnn.app.settings import Config
from minicnn.saved_model import load_model

SMALL = [
    "--model", "lenet5", "--backend", "numpy", "--threads", "1", "--epochs", "3", "--batch-size", "16",
    "--limit-train", "60", "--limit-test", "20",
]  # fmt: skip


def experiment(*flags: str) -> Experiment:
    config = Config.resolve(vars(train.parse([*SMALL, *flags])))
    images = data.load(config.dataset, limit_train=60, limit_test=20, validation=config.validation)
    return Experiment(config, images)


def go(run: Experiment, epochs: int) -> list[bool]:
    """Train so many epochs; whether each was the best so far."""
    best = []
    for _ in range(epochs):
        for _ in run.steps():
            pass
        best.append(run.finish_epoch())
    return best


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_validation_images_are_a_tenth_and_not_learnt_from() -> None:
    run = experiment()
    whole = data.load("fashion-mnist-sample", limit_train=60, limit_test=20)
    assert whole.validation is None
    assert run.validation is not None
    assert np.bincount(run.validation.y).tolist() == [1] * 10
    learnt, held, all_ = (
        {image.tobytes() for image in images.x}
        for images in (run.batches.images, run.validation, whole.train)
    )
    assert not learnt & held
    assert learnt | held == all_
    assert len(run.batches.images) == 50
    assert run.dataset.fingerprint != whole.fingerprint


@pytest.mark.parametrize(("share", "held"), [("0.5", [3] * 10), ("0", None)])
def test_the_share_is_a_setting(share: str, held: list[int] | None) -> None:
    validation = experiment("--validation", share).validation
    assert held == (None if validation is None else np.bincount(validation.y).tolist())


def test_test_images_decide_nothing() -> None:
    """Whatever the test images are, the same epochs are the best ones, with the same figures."""
    one, other = experiment(), experiment()
    rng = np.random.default_rng(0)
    noise = data.Images(
        rng.integers(0, 256, other.dataset.test.x.shape, np.uint8), other.dataset.test.y[::-1]
    )
    other = Experiment(other.config, replace_test(other.dataset, noise))
    assert go(one, 3) == go(other, 3)
    assert [without_time(entry) for entry in one.history] == [without_time(e) for e in other.history]
    assert not [entry for entry in one.history if "test_accuracy" in entry]


def replace_test(dataset: data.Dataset, test: data.Images) -> data.Dataset:
    return data.Dataset(
        dataset.name, dataset.train, test, dataset.class_names, dataset.mean, dataset.std, "",
        dataset.validation,
    )  # fmt: skip


def without_time(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("seconds", "images_per_second")}


def test_the_best_epoch_has_the_highest_accuracy_and_of_equal_ones_the_lowest_loss() -> None:
    run = experiment()
    scores = [(0.5, 2.0), (0.7, 1.5), (0.7, 1.2), (0.6, 0.9), (0.7, 1.2)]
    run.history = [
        {"epoch": i, "validation_accuracy": a, "validation_loss": b} for i, (a, b) in enumerate(scores)
    ]
    assert run.best is run.history[2]
    assert run.best_accuracy == 0.7


def test_without_validation_images_the_last_epoch_is_kept() -> None:
    run = experiment("--validation", "0")
    assert run.best is None
    assert go(run, 2) == [True, True]
    assert run.best is run.history[-1]
    assert run.best_accuracy == -1


@pytest.mark.parametrize("share", ["0.2", "0"])
def test_the_report_is_of_the_best_weights_on_the_test_images(
    share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train.main([*SMALL, "--validation", share, "--lr", "0.02", "--out", str(out)])
    printed = capsys.readouterr().out
    saved, model = load_model(out / "best.safetensors", "numpy")
    test = data.load("fashion-mnist-sample", limit_train=60, limit_test=20).test
    logits = predict_images(model, test.x, saved.mean, saved.std)
    told = json.loads((out / "report.json").read_text())
    assert told["loss"] == metrics.cross_entropy(logits, test.y)
    assert (told["images"], told["accuracy"]) == (20, metrics.accuracy(logits, test.y))
    assert not [entry for entry in history(out) if "test_loss" in entry]
    if share == "0":
        assert "60 training, no validation and 20 test images" in printed
        assert saved.epoch == 3
        assert "the weights after the last epoch, 3, as no validation images chose one" in printed
        assert "(best)" not in printed
    else:
        assert "50 training, 10 validation and 20 test images" in printed
        best = max(history(out), key=lambda e: (e["validation_accuracy"], -e["validation_loss"]))
        assert saved.epoch == best["epoch"]
        assert (
            f"the weights after epoch {saved.epoch}, with {100 * best['validation_accuracy']:.2f} % of"
            in printed
        )


def test_epochs_are_tested_only_where_that_is_asked_for() -> None:
    run, tested = experiment(), experiment("--test-every", "2")
    assert go(run, 3) == go(tested, 3)
    assert ["test_accuracy" in entry for entry in run.history] == [False] * 3
    assert ["test_accuracy" in entry for entry in tested.history] == [False, True, False]
    for name, array in run.state_dict().items():
        np.testing.assert_array_equal(tested.state_dict()[name], array)


def test_without_images_to_hold_out_it_is_said() -> None:
    with pytest.raises(data.DataError, match="a class of at least 2 training images, to hold one out"):
        data.load("fashion-mnist-sample", limit_train=10, validation=0.1)


def test_early_stopping_needs_validation_images() -> None:
    with pytest.raises(
        ValueError, match="--early-stop judges by validation images, and --validation 0 leaves"
    ):
        experiment("--early-stop", "2", "--validation", "0")
    config = Config.resolve(vars(train.parse([*SMALL, "--early-stop", "2"])))
    with pytest.raises(ValueError, match="--early-stop: expected validation images, got none"):
        Experiment(config, data.load("fashion-mnist-sample", limit_train=60))


def test_a_run_that_test_images_judged_is_used_but_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "finish", lambda *_: None)
    train.main([*SMALL, "--out", str(tmp_path)])
    file = tmp_path / "checkpoint.safetensors"
    saved = checkpoint.load(file)
    del saved.config["validation"]
    saved.config["test_every"] = 1
    checkpoint.save(file, saved)
    with pytest.raises(
        checkpoint.CheckpointError, match="this run began when test images chose the best epoch"
    ):
        train.main(["--resume", "--out", str(tmp_path)])
    assert (
        Config.of_checkpoint(file, saved).model == load_model(file, "numpy")[0].config["model"] == "lenet5"
    )
