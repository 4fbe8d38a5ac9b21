"""Recipes: files of flags, what wins over what, and the digits that one of them is for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from minicnn import data, models, recipes
from minicnn.app import report
from minicnn.app.command_line import exit_with
from minicnn.app.commands import train
from minicnn.app.settings import Config

TINY = [
    "--dataset", "fashion-mnist-sample", "--model", "lenet5", "--backend", "numpy", "--limit-train", "40",
    "--limit-test", "20", "--epochs", "1", "--batch-size", "20",
]  # fmt: skip


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_settings_that_can_run(name: str) -> None:
    args = train.parse(["--recipe", name])
    config = Config.resolve(vars(args))
    assert config.recipe == name
    assert config.dataset in data.names()
    assert config.augment_options() is not None
    side = 8 if config.dataset == "digits" else 28
    model = models.create(config.model, in_channels=1, num_classes=10, image_size=side, backend="numpy")
    assert model.output_shape((1, side, side)) == (10,)
    assert len(recipes.about(name).splitlines()) >= 2


def test_the_five_recipes_are_there() -> None:
    assert recipes.names() == ["digits", "fashion-94", "fashion-best", "fashion-quick", "mnist"]


def test_given_flags_win_over_the_recipe_and_it_over_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, 'epochs = 7\nlr = 0.25\noptimizer = "sgd"\nnesterov = true\naugment = "flip"\n')
    args = train.parse(["--epochs", "2", "--recipe", file, "--no-nesterov", "--augment", "none"])
    assert (args.epochs, args.lr, args.optimizer, args.nesterov) == (2, 0.25, "sgd", False)
    assert args.batch_size == train.parse([]).batch_size
    assert Config.resolve(vars(args)).augment is None
    assert train.parse(["--recipe", file]).nesterov is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "mine.toml: expected a TOML file of flags"),
        (
            "epochs = [1]",
            r"mine.toml: epochs: expected a text, a number, a list of at least 2 whole numbers, true or "
            r"false, got \[1\]",
        ),
        ("epoch = 3", r"mine.toml: expected flags of this command, got --epoch=3"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train.parse(["--recipe", write(tmp_path, text)])


def test_a_missing_recipe_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, message in (
        ("fashion", "fashion-94, fashion-best, fashion-quick, mnist or a .toml file, got fashion"),
        (str(tmp_path / "no.toml"), "no.toml: No such file"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            exit_with(lambda name=name: train.main(["--recipe", name]))
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_list_tells_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    train.main(["--recipe", "list"])
    printed = capsys.readouterr().out
    for name in recipes.names():
        assert f"{name}\n  {recipes.about(name).splitlines()[0]}" in printed
        assert recipes.measured(name) in printed
    assert printed.count("  Measured: ") == len(recipes.results.load())


def test_a_run_keeps_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "finish", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, 'lr = 0.002\naugment = "crop=2,flip"\nema = 0.9\n')
    train.main([*TINY, "--recipe", file])
    kept = json.loads((tmp_path / "runs" / "mine" / "config.json").read_text())
    assert (kept["recipe"], kept["lr"], kept["augment"]) == (file, 0.002, "flip,crop=2")
    Path(file).unlink()
    train.main(["--resume", "--out", "runs/mine"])
    assert "all 1 epochs of runs/mine are done already" in capsys.readouterr().out


# ---- digits ------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    digits = data.load("digits", seed=3)
    assert digits.train.x.shape[1:] == digits.test.x.shape[1:] == (1, 8, 8)
    assert (len(digits.train), len(digits.test)) == (1438, 359)
    assert digits.class_names == list("0123456789")
    source = load_digits()
    expected = sorted((np.rint(i * 255 / 16).astype(np.uint8).tobytes(), int(t))
                      for i, t in zip(source.images, source.target, strict=True))  # fmt: skip
    both = (digits.train, digits.test)
    got = sorted((x.tobytes(), int(y)) for part in both for x, y in zip(part.x, part.y, strict=True))
    assert got == expected


def test_digits_are_split_by_the_seed_alike_in_every_class() -> None:
    one, same, other = (data.load("digits", seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    shares = np.bincount(one.test.y) / (np.bincount(one.test.y) + np.bincount(one.train.y))
    assert np.abs(shares - 0.2).max() < 0.01
