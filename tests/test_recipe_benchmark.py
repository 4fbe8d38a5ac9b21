"""PyTorch's side of the recipes is the same run: same steps, same averages, same accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import recipes as recipes_benchmark
from torch_recipe import TorchRun

from minicnn import data, train
from minicnn.config import Config
from minicnn.experiment import Experiment

TINY = [
    "--model", "lenet5", "--backend", "numpy", "--limit-train", "64", "--limit-test", "60", "--epochs", "2",
    "--batch-size", "16",
]  # fmt: skip
SGD = ["--optimizer", "sgd", "--lr", "0.05", "--nesterov", "--weight-decay", "0.001", "--clip-norm", "1"]


@pytest.mark.parametrize(
    "optimizer", [SGD, ["--optimizer", "adamw", "--lr", "0.001"]], ids=["sgd", "adamw"]
)
def test_both_sides_take_the_same_steps(optimizer: list[str]) -> None:
    flags = [*TINY, *optimizer, "--augment", "flip,crop=2,mixup=0.5", "--label-smoothing", "0.1",
             "--ema", "0.8", "--tta", "flip", "--class-weight", "balanced"]  # fmt: skip
    config = Config.resolve(vars(train.parse(flags)))
    dataset = data.load(config.dataset, limit_train=64, limit_test=60)
    ours, theirs = Experiment(config, dataset), TorchRun(config, dataset)
    start = ours.model.state_dict()
    for epoch in range(2):
        for _ in ours.steps():
            pass
        ours.finish_epoch()
        theirs.train_epoch(epoch)
        assert theirs.accuracy() == pytest.approx(ours.history[-1]["test_accuracy"], abs=1 / 60)
    averaged = ours.state_dict()
    for name, array in ours.model.state_dict().items():
        moved = np.abs(array - start[name]).max()
        assert moved > 0
        got = theirs.module.state_dict()[name].numpy()
        np.testing.assert_allclose(got, array, atol=0.01 * moved)
        np.testing.assert_allclose(theirs.averages[name].numpy(), averaged[name], atol=0.01 * moved)


def test_the_peer_does_not_stop_early() -> None:
    config = Config.resolve(vars(train.parse([*TINY, "--early-stop", "1"])))
    with pytest.raises(ValueError, match="--early-stop: expected none"):
        TorchRun(config, data.load(config.dataset, limit_train=64, limit_test=20))


def test_summary() -> None:
    got = recipes_benchmark.summary([(0.9, 10.0), (0.92, 14.0), (0.94, 12.0)])
    assert (got["accuracy"], got["median seconds"]) == (0.92, 12.0)
    assert got["standard error"] == pytest.approx(0.02 / 3**0.5, abs=1e-5)
    assert recipes_benchmark.summary([(0.9, 1.0)])["standard error"] is None


def test_the_script_saves_what_both_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('model = "lenet5"\nepochs = 1\nlimit-train = 64\nlimit-test = 20\naugment = "flip"\n')
    (tmp_path / "recipes.json").write_text('{"other": 1}')
    for module in ("recipes", "paired"):
        monkeypatch.setattr(f"{module}.RESULTS", tmp_path)
    arguments = ["recipes.py", str(recipe), "--seeds", "1", "--torch-seeds", "1", "--threads", "1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--batch-size", "32"])
    monkeypatch.setattr(recipes_benchmark, "run_minicnn", lambda _: (0.5, 1.0))
    recipes_benchmark.main()
    saved = json.loads((tmp_path / "recipes.json").read_text())
    assert saved["other"] == 1
    entry = saved[str(recipe)]
    assert entry["minicnn"]["accuracies"] == [0.5]
    assert 0 <= entry["torch"]["accuracy"] <= 1
    assert entry["torch / minicnn"] == pytest.approx(entry["torch"]["median seconds"], abs=0.05)
    assert "written" in capsys.readouterr().err
