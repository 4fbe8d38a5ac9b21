"""Checkpoints that are intact and say what cannot be: each command that reads them refuses, in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged import forge
from PIL import Image

from minicnn import checkpoint, evaluate, predict, train
from minicnn.app import training
from minicnn.app.command_line import exit_with, make_console
from minicnn.app.commands.train import parse
from minicnn.app.events import Events
from minicnn.app.experiment import Experiment
from minicnn.app.run_folder import RunFolder
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.data import load

Change = Callable[[Checkpoint], Any]
FLAGS = [
    "--model", "fast_cnn", "--dataset", "digits", "--limit-train", "16", "--limit-test", "10",
    "--batch-size", "4", "--epochs", "3", "--backend", "numpy", "--ema", "0.9",
    "--validation", "0", "--test-every", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that stopped after the second batch of its second epoch."""
    config = Config.resolve(vars(parse(FLAGS)))
    dataset = load(config.dataset, limit_train=config.limit_train, limit_test=config.limit_test)
    folder, experiment = RunFolder(tmp_path_factory.mktemp("run")), Experiment(config, dataset)
    training.begin(folder, experiment, overwrite=False)
    training._train_epoch(folder, experiment, make_console(), training._StopRequest(), Events())
    steps = experiment.steps()
    next(steps), next(steps)
    folder.save(experiment)
    return folder.path


@pytest.fixture
def saved(run: Path) -> Checkpoint:
    return checkpoint.load(run / "checkpoint.safetensors")


def message(
    capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], None], *given: object
) -> str:
    """The one line of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: command([str(one) for one in given]))
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("backend: ")]
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


def test_what_a_run_writes_is_plausible(saved: Checkpoint, run: Path) -> None:
    assert (saved.epoch, saved.batch, saved.optimizer_steps) == (1, 2, 6)
    assert saved.training
    assert checkpoint.load(run / "best.safetensors").epoch == 1


IMPOSSIBLE: list[tuple[Change, str]] = [
    (lambda c: setattr(c, "sums", {}), "sums: expected loss, correct, images, seconds, got []"),
    (lambda c: c.sums.update(more=1.0), "sums: expected loss, correct, images, seconds, got ['correct', "),
    (
        lambda c: c.sums.update(images=-4),
        "sums: images: expected a finite number from 0 to 1.09951e+12, got -4",
    ),
    (lambda c: c.sums.update(images=10**400), "sums: images: expected a finite number from 0 to "),
    (lambda c: c.sums.update(loss=float("inf")), "sums: loss: expected a finite number, got inf"),
    (lambda c: c.sums.update(correct=99), "sums: expected at most 8 right answers, got 99"),
    (lambda c: c.sums.update(seconds=0.0), "sums: expected an image and some time for each of 2 batches"),
    (lambda c: setattr(c, "batch", 0), "sums: expected zeros before the first batch, got {"),
    (lambda c: setattr(c, "batch", 10**9), "sums: expected an image and some time for each of 1000000000"),
    (lambda c: setattr(c, "batch", -1), "batch: expected a finite number from 0 to 1.09951e+12, got -1"),
    (lambda c: setattr(c, "epoch", -1), "epoch: expected a finite number from 0 to 1.09951e+12, got -1"),
    (
        lambda c: setattr(c, "optimizer_steps", 1 << 70),
        "optimizer_steps: expected a finite number from 0 to ",
    ),
    (lambda c: setattr(c, "epoch", 2), "history: expected an entry for each of 2 epochs, got 1"),
    (lambda c: c.history[0].pop("lr"), "history: epoch 1: expected lr, which is not there"),
    (lambda c: c.history[0].update(epoch=2), "history: expected epoch 1, got 2"),
    (lambda c: c.history[0].update(lr="x"), "history: epoch 1: lr: expected a number, got 'x'"),
    (
        lambda c: c.history[0].update(train_loss=None),
        "history: epoch 1: train_loss: expected a number, got None",
    ),
    (
        lambda c: c.history[0].update(test_accuracy=2),
        "history: epoch 1: test_accuracy: expected a finite number from 0 to 1, got 2",
    ),
    (
        lambda c: c.history[0].update(test_loss=float("nan")),
        "history: epoch 1: test_loss: expected a finite number, got nan",
    ),
    (
        lambda c: setattr(c, "best_accuracy", float("nan")),
        "best_accuracy: expected one of the history's or -1",
    ),
    (
        lambda c: setattr(c, "best_accuracy", 0.123),
        "best_accuracy: expected one of the history's or -1, got 0.1",
    ),
    (lambda c: setattr(c, "mean", [10**400]), "mean: expected 1 finite numbers, got [1000"),
    (
        lambda c: c.generators.update(drop=[]),
        "generators: drop: expected the state of a PCG64 generator, got []",
    ),
    (
        lambda c: c.generators.update(drop=np.random.PCG64(0).state | {"uinteger": -1}),
        "generators: drop: expected the state of a PCG64 generator, got {",
    ),
    (
        lambda c: c.generators.update(drop=np.random.PCG64(0).state | {"bit_generator": "MT19937"}),
        "generators: drop: expected the state of a PCG64 generator, got {",
    ),
    (
        lambda c: c.config.update(epochs=-3),
        "its settings: epochs: expected a whole number of at least 1, got -3",
    ),
    (
        lambda c: c.config.update(threads=10**9),
        "its settings: threads: expected a whole number of at most 1024",
    ),
    (
        lambda c: c.config.update(batch_size=10**30),
        "its settings: batch_size: expected a whole number of at most ",
    ),
    (lambda c: c.config.update(seed=-1), ": expected "),
    (lambda c: c.config.update(lr=float("nan")), "its settings: lr: expected a number above 0, got nan"),
    (
        lambda c: c.config.update(tta="often"),
        "its settings: tta: expected one of none, flip, flip-shift, got 'often'",
    ),
    (lambda c: c.config.update(augment="spin"), "its settings: "),
    (
        lambda c: c.config.update(image_size=9),
        "its settings: image_size: expected the images' (8, 8), got 9",
    ),
]


@pytest.mark.parametrize(("change", "expected"), IMPOSSIBLE)
def test_what_cannot_be_is_refused_by_every_command(
    change: Change, expected: str, saved: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    change(saved)
    forge(file, saved)
    for command, *given in (
        (train.main, "--resume", "--out", tmp_path),
        (predict.main, "--checkpoint", file, tmp_path / "x.png"),
        (evaluate.main, "--checkpoint", file, "--dataset", "digits"),
    ):
        said = message(capsys, command, *given)
        assert said.startswith(f"{file}: ")
        assert expected in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda c: (c.sums.update(images=10**10), setattr(c, "batch", 10**9)),
            "batch: expected at most the epoch's 4, got 1000000000",
        ),
        (lambda c: c.sums.update(images=7.0, correct=0), "sums: expected 8 images in 2 batches, got 7.0"),
        (
            lambda c: setattr(c, "optimizer_steps", 3),
            "optimizer_steps: expected 6, after 1 epochs and 2 batches of 4, got 3",
        ),
        (lambda c: c.training.clear(), "training: expected the weights that --ema averages, got 0 tensors"),
        (
            lambda c: c.history[0].pop("test_loss"),
            "history: epoch 1: expected test_loss, which is not there",
        ),
        (lambda c: c.optimizer.clear(), "[Adam] state: missing or unexpected ["),
        (
            lambda c: c.generators.update(drop=np.random.PCG64(0).state),
            "[set_generator_state] layers: expected []",
        ),
        (lambda c: c.config.update(ema=0.0), "training: expected none, since --ema is off, got "),
    ],
)
def test_a_position_that_the_run_cannot_have_is_refused(
    change: Change, expected: str, saved: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    change(saved)
    forge(file, saved)
    before = file.read_bytes()
    assert message(capsys, train.main, "--resume", "--out", tmp_path).startswith(f"{file}: {expected}")
    assert file.read_bytes() == before


def first(tensors: dict[str, np.ndarray]) -> str:
    return next(iter(tensors))


@pytest.mark.parametrize(
    ("group", "change", "expected"),
    [
        ("optimizer", lambda a: a[:1], "as the weight has, got float32 (1,"),
        ("optimizer", lambda a: a.astype("f8"), "as the weight has, got float64"),
        ("training", lambda a: a[:1], "as the weight has, got float32 (1,"),
    ],
)
def test_the_optimizers_tensors_are_as_large_as_the_weights(
    group: str, change: Callable[[np.ndarray], np.ndarray], expected: str, saved: Checkpoint, tmp_path: Path
) -> None:
    tensors = getattr(saved, group)
    name = first(tensors)
    tensors[name] = change(tensors[name])
    forge(tmp_path / "c.safetensors", saved)
    with pytest.raises(
        CheckpointError, match=rf"c\.safetensors: {group}\.{name}: expected float32 "
    ) as error:
        checkpoint.load(tmp_path / "c.safetensors")
    assert expected in str(error.value)


def test_an_optimizers_tensor_is_of_a_weight(saved: Checkpoint, tmp_path: Path) -> None:
    saved.optimizer["exp_avg.nothing"] = np.zeros(3, np.float32)
    forge(tmp_path / "c.safetensors", saved)
    with pytest.raises(
        CheckpointError, match=r"optimizer\.exp_avg\.nothing: expected a weight of the model"
    ):
        checkpoint.load(tmp_path / "c.safetensors")


def test_what_is_refused_is_all_that_differs(saved: Checkpoint, run: Path) -> None:
    """The unchanged checkpoint goes on."""
    again = copy.deepcopy(saved)
    config = Config.of_checkpoint(run, again)
    experiment = Experiment(config, load("digits", limit_train=16, limit_test=10))
    experiment.restore(run / "checkpoint.safetensors", again)
    assert asdict(experiment.checkpoint())["sums"] == saved.sums
    assert (experiment.epoch, experiment.batch) == (1, 2)
