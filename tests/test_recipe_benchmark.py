"""PyTorch's side of the recipes is the same run: same steps, same averages, same accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import precision
import pytest
import recipes as recipes_benchmark
import report
from torch_recipe import TorchRun

from minicnn import data, recipes
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.settings import Config
from minicnn.recipes import results

TINY = [
    "--model", "lenet5", "--backend", "numpy", "--limit-train", "64", "--limit-test", "60", "--epochs", "2",
    "--batch-size", "16", "--validation", "0",
]  # fmt: skip
SGD = ["--optimizer", "sgd", "--lr", "0.05", "--nesterov", "--weight-decay", "0.001", "--clip-norm", "1"]


@pytest.mark.parametrize(
    "optimizer",
    [SGD, *(["--optimizer", name, "--lr", "0.001"] for name in ("adam", "adamw", "rmsprop"))],
    ids=["sgd", "adam", "adamw", "rmsprop"],
)
def test_both_sides_take_the_same_steps(optimizer: list[str]) -> None:
    flags = [*TINY, *optimizer, "--augment", "flip,crop=2,mixup=0.5", "--label-smoothing", "0.1",
             "--ema", "0.8", "--tta", "flip-shift", "--class-weight", "balanced",
             "--test-every", "1"]  # fmt: skip
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


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--early-stop", "1"), ("--init-from", "net.pt"), ("--freeze", "0"), ("--validation", "0.2")],
)
def test_the_peer_refuses_what_it_does_not_do(flag: str, value: str) -> None:
    flags = [*TINY, *(["--validation", "0.1"] if flag == "--early-stop" else []), flag, value]
    config = Config.resolve(vars(train.parse(flags)))
    with pytest.raises(ValueError, match=f"{flag}: expected none"):
        TorchRun(config, data.load(config.dataset, limit_train=64, limit_test=20))


def test_accuracies_of_seeds_add_up() -> None:
    entry = recipes_benchmark.with_accuracies({}, "torch", {"0": 0.9})
    assert entry["torch"] == {"seeds": {"0": 0.9}, "accuracy": 0.9, "standard error": None}
    entry = recipes_benchmark.with_accuracies(entry, "torch", {"1": 0.92, "2": 0.94})
    assert entry["torch"]["seeds"] == {"0": 0.9, "1": 0.92, "2": 0.94}
    assert entry["torch"]["accuracy"] == 0.92
    assert entry["torch"]["standard error"] == pytest.approx(0.02 / 3**0.5, abs=1e-5)


def test_time_is_reckoned_from_a_few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(side: str, flags: list[str]) -> tuple[float, float]:
        epochs = int(flags[flags.index("--epochs") + 1]) if "--epochs" in flags else 20
        return 0.5, 3 + epochs * (2 if side == "minicnn" else 5)

    monkeypatch.setattr(recipes_benchmark, "run", run)
    both = ["minicnn", "torch"]
    whole = recipes_benchmark.measure_time(both, [], 20, None)
    assert whole == {"minicnn": 43, "torch": 103, "torch / minicnn": 2.4, "epochs timed": 20}
    assert recipes_benchmark.measure_time(both, [], 20, 4) == whole | {"epochs timed": 4}
    assert recipes_benchmark.measure_time(["minicnn"], [], 20, None) == {"minicnn": 43, "epochs timed": 20}


def measure(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["recipes.py", *arguments, "--threads", "1"])
    recipes_benchmark.main()


def test_the_script_saves_what_both_sides_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "mine.toml"
    text = '# Mine.\n\nmodel = "lenet5"\nepochs = 1\nlimit-train = 64\nlimit-test = 20\nvalidation = 0\n'
    recipe.write_text(text)
    file = tmp_path / "results.json"
    file.write_text('{"other": 1}')
    monkeypatch.setattr(results, "PATH", file)
    measure(monkeypatch, str(recipe), "--sides", "torch", "--seeds", "4")
    monkeypatch.setattr(recipes_benchmark, "run", lambda *_: (0.5, 120.0))
    measure(monkeypatch, str(recipe), "--sides", "minicnn", "--seeds", "0,1")
    measure(monkeypatch, str(recipe), "--time")
    saved = json.loads(file.read_text())
    assert saved["other"] == 1
    entry = saved[str(recipe)]
    assert entry["minicnn"]["seeds"] == {"0": 0.5, "1": 0.5}
    assert 0 <= entry["torch"]["accuracy"] <= 1
    said = recipes.measured(str(recipe))
    assert said.startswith("Measured: 50.00 % +- 0.00 (2 seeds); ")
    assert said.endswith("in PyTorch 2 min 0 s, 1.0 times as long.")
    elsewhere = recipes_benchmark.machine(1) | {"cpu": "Another"}
    monkeypatch.setattr(recipes_benchmark, "machine", lambda _: elsewhere)
    monkeypatch.setattr(recipes_benchmark, "run", lambda *_: (0.5, 180.0))
    measure(monkeypatch, str(recipe), "--time", "--sides", "minicnn")
    assert recipes.measured(str(recipe)) == f"{said} 3 min 0 s on Another, 1 threads."
    assert recipe.read_text() == text, "no script writes into a recipe"
    recipe.write_text(text.replace("lenet5", "simple_cnn"))
    assert recipes.measured(str(recipe)) == "", "figures of other flags"
    measure(monkeypatch, str(recipe), "--time")
    changed = json.loads(file.read_text())[str(recipe)]
    assert "minicnn" not in changed, "accuracies of another recipe must not stay"


@pytest.mark.parametrize("name", recipes.names())
def test_the_saved_figures_are_those_of_the_recipe_as_it_is(name: str) -> None:
    saved = results.load()
    assert bool(recipes.measured(name)) == (name in saved)
    assert name not in saved or saved[name]["settings"] == recipes.arguments(name)


def test_precisions_on_a_card_are_told_with_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(side: str, flags: list[str], backend: str) -> tuple[float, float]:
        asked.append((side, backend, *flags))
        seed, name = float(flags[3]), flags[5]
        return {"float32": 0.94, "tf32": 0.93, "bfloat16": 0.92}[name] + seed / 100, 3.14

    monkeypatch.setattr(recipes_benchmark, "run", run)
    entry = precision.of_recipe("fashion-94", ["0", "1"], ["--threads", "2"], "cuda")
    assert len(asked) == 6
    flags = ("--recipe", "fashion-94", "--seed", "0", "--precision", "float32", "--threads", "2")
    assert asked[0] == ("minicnn", "cuda", *flags)
    assert entry["bfloat16 - float32"] == -0.02
    told = report.precision_card({"recipes on a card": {"fashion-94": entry | {"machine": {"card": "H"}}}})
    assert "| fashion-94 | tf32 | 93.00%, 94.00% | 93.50% | 3.1, 3.1 |" in told
    assert told.endswith("`benchmarks/precision.py --backend cuda` on H.")
    assert report.precision_card({"recipes": {}}) == ""
