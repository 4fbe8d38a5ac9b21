"""Wrong labels: planted ones are found first, by name, and the scores are what their definitions say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import data, label_errors, mislabels, plots_judging
from minicnn.app.command_line import exit_with
from minicnn.app.commands import train
from minicnn.app.commands.mislabels import _folds
from minicnn.app.settings import Config
from scripts import report_example

FLAGS = [
    "--model", "lenet5", "--backend", "numpy", "--threads", "1", "--epochs", "4", "--batch-size", "8",
    "--folds", "3", "--lr", "0.003",
]  # fmt: skip
LEVELS = {"black": 30, "grey": 130, "white": 225}
PLANTED = {"black/white-7.png": "white", "white/grey-3.png": "grey"}
"""Files in the folder of a class that they are not of, and the class that they are of."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy squares of three shades, of which two lie in a wrong class's folder; tests are apart."""
    root, rng = tmp_path_factory.mktemp("shades"), np.random.default_rng(3)

    def save(path: Path, level: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((level + rng.integers(-25, 26, (12, 12))).astype(np.uint8)).save(path)

    for name, level in LEVELS.items():
        for i in range(15):
            save(root / "train" / name / f"{i:02}.png", level)
        save(root / "test" / name / "0.png", level)
    for file, true in PLANTED.items():
        save(root / "train" / file, LEVELS[true])
    return root


def test_planted_labels_are_found_first(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    mislabels.main([*FLAGS, "--dataset", f"folder:{folder}", "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {"mislabels.json", "mislabels.png"}
    result = json.loads((out / "mislabels.json").read_text())
    found = result["mislabels"][: len(PLANTED)]
    planted = {str(folder / "train" / file): true for file, true in PLANTED.items()}
    assert {one["file"]: one["predicted"] for one in found} == planted
    train = data.load(f"folder:{folder}").train
    assert train.paths is not None
    for one in found:
        assert str(train.paths[one["index"]]) == one["file"]
        assert one["label"] == Path(one["file"]).parent.name
        assert one["confident"]
        assert one["probability"] > one["probability_of_label"]
    assert (result["images"], result["folds"], result["model"]) == (47, 3, "lenet5")
    printed = capsys.readouterr().out
    assert printed.index(found[0]["file"]) < printed.index(found[1]["file"])
    assert f"{len(result['mislabels'])} of 47 labels are contradicted" in printed


def test_the_example_plants_wrong_labels(tmp_path: Path) -> None:
    sample = data.load(data.SAMPLE)
    moved = report_example.plant(tmp_path, pictures=30, planted=4)
    files = list((tmp_path / "train").rglob("*.png"))
    assert len(files) == 30
    names = [name.replace("/", "-") for name in sample.class_names]
    wrong = {str(file) for file in files if names[sample.train.y[int(file.stem)]] != file.parent.name}
    assert wrong == moved
    assert len(moved) == 4


def test_data_without_files_have_numbers(tmp_path: Path) -> None:
    """With labels learnt in one epoch of few images, some are contradicted."""
    limits = ["--dataset", "digits", "--limit-train", "40", "--image-size", "12", "--epochs", "1"]
    mislabels.main([*FLAGS, *limits, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "mislabels.json").read_text())
    assert result["mislabels"]
    assert all(one["file"] is None for one in result["mislabels"])
    margins = [one["probability"] - one["probability_of_label"] for one in result["mislabels"]]
    assert margins == sorted(margins, reverse=True)
    assert result["confident"] == sum(one["confident"] for one in result["mislabels"])


def test_disagreements_by_hand() -> None:
    probabilities = np.array(
        [[0.8, 0.2, 0.0], [0.7, 0.3, 0.0], [0.1, 0.9, 0.0], [0.45, 0.55, 0.0], [0.6, 0.4, 0.0]]
    )
    found = label_errors.disagreements(probabilities, np.array([0, 1, 1, 0, 0]))
    keys = ("index", "label", "predicted", "probability", "probability_of_label", "confident")
    # class 0 has the mean (0.8 + 0.45 + 0.6) / 3 = 0.617, class 1 (0.3 + 0.9) / 2 = 0.6
    assert [tuple(one[key] for key in keys) for one in found] == [
        (1, 1, 0, 0.7, 0.3, True),
        (3, 0, 1, 0.55, 0.45, False),
    ]


def test_a_class_without_labels_is_predicted_confidently_only_if_it_is_certain() -> None:
    probabilities = np.array([[0.2, 0.8], [0.0, 1.0], [0.9, 0.1]])
    found = label_errors.disagreements(probabilities, np.zeros(3, np.int64))
    assert [(one["index"], one["confident"]) for one in found] == [(1, True), (0, False)]


@pytest.mark.parametrize(("channels", "count"), [(1, 24), (3, 2), (1, 0)])
def test_plot(channels: int, count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, channels, 9, 7)).astype(np.uint8)
    found = label_errors.disagreements(rng.dirichlet(np.ones(100), 60), rng.integers(0, 100, 60))
    names = [f"a class with a long name, {number}" for number in range(100)]
    plots_judging.mislabels(tmp_path / "m.png", images, found[:count], names)
    picture = data.read_image(tmp_path / "m.png", channels=3, size=None)
    assert len(np.unique(picture.reshape(3, -1), axis=1).T) > 20, "the picture is empty"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "1"], "argument --folds: expected a whole number of at least 2, got 1"),
        (
            ["--folds", "17"],
            "--folds 17: expected at least 17 training images of each class, got 16 of black",
        ),
        (["--early-stop", "3"], "unrecognized arguments: --early-stop 3"),
        (["--recipe", "list"], "--recipe list is for train; here the flag takes the name of a recipe"),
    ],
)
def test_refusals(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*FLAGS, "--dataset", f"folder:{folder}", "--out", str(tmp_path / "out"), *arguments]
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: mislabels.main(given))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_holds_but_for_what_has_no_flag_here(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('epochs = 1\nbatch-size = 16\ntest-every = 9\nearly-stop = 5\nmodel = "lenet5"\n')
    flags = ["--backend", "numpy", "--threads", "1", "--folds", "2", "--dataset", f"folder:{folder}"]
    mislabels.main([*flags, "--recipe", str(recipe), "--out", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "mislabels.json").read_text())
    assert (result["epochs"], result["model"]) == (1, "lenet5")


def test_divergence_ends_it_in_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*FLAGS, "--dataset", f"folder:{folder}", "--out", str(tmp_path), "--lr", "1e30"]
    with pytest.raises(SystemExit):
        exit_with(lambda: mislabels.main(given))
    error = capsys.readouterr().err
    assert error.startswith("error: training diverged in epoch ")
    assert "checkpoint" not in error, "there is none"


def test_groups_are_in_one_fold(folder: Path) -> None:
    flags = ["--dataset", f"folder:{folder}", "--group-by", r"(\d)\.png"]
    config = Config.resolve(vars(train.parse(flags)))
    images = data.load(f"folder:{folder}").train
    assert images.paths is not None
    digits = np.array([path.stem[-1] for path in images.paths])
    folds = list(_folds(config, images, 3, folder))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(len(images)))
    for learnt, held in folds:
        assert not set(digits[learnt]) & set(digits[held])
