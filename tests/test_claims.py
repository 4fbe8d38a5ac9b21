"""What a checkpoint claims of images is bounded; paths that it names are followed where that is safe."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged import forge
from PIL import Image
from refused import line_of

from minicnn import checkpoint, data, evaluate, models, predict, train
from minicnn.app import training
from minicnn.app.command_line import make_console
from minicnn.app.commands.train import parse
from minicnn.app.experiment import Experiment
from minicnn.app.known_paths import without_folders
from minicnn.app.run_folder import RunFolder
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint
from minicnn.saved_model import MOST_MEMORY, images_at_once, load_model, memory_of_an_image

# ---- the size of images ----------------------------------------------------------------------------------


def of_model(name: str, size: int, **config: Any) -> Checkpoint:
    """A checkpoint of a net whose weights do not depend on the images' size."""
    model = models.create(name, in_channels=1, num_classes=2, image_size=32, backend="numpy")
    settings = {**vars(Config.resolve(vars(parse(["--model", name])))), **config}
    sums = {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}
    shape = (1, size, size)
    return Checkpoint(settings, ["a", "b"], shape, [0.5], [0.5], "", sums=sums, model=model.state_dict())


@pytest.mark.parametrize("name", ["fast_cnn", "resnet20", "googlenet"])
def test_images_for_which_no_memory_is_enough_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    forge(file, of_model(name, 100_000))
    for command in (
        lambda: predict.main(["--checkpoint", str(file), str(tmp_path / "x.png")]),
        lambda: evaluate.main(["--checkpoint", str(file)]),
        lambda: train.main(["--resume", "--out", str(tmp_path)]),
        lambda: load_model(file, "numpy"),
    ):
        message = line_of(capsys, command)
        assert message.startswith(
            f"{file}: image_shape: expected images for which {name} needs at most 4 GiB"
        )
        assert "got (1, 100000, 100000): one needs " in message


def test_the_memory_of_an_image_is_that_of_the_largest_operation() -> None:
    model = models.build("lenet5", in_channels=1, num_classes=10, image_size=28)
    patches = 28 * 28 * 25  # of the first layer, which pads by 2
    assert memory_of_an_image(model, (1, 28, 28)) == 4 * (28 * 28 + 6 * 28 * 28 + patches)
    assert images_at_once(model, (1, 28, 28), 256) == 256
    large = models.build("resnet20", in_channels=3, num_classes=10, image_size=500)
    assert images_at_once(large, (3, 500, 500), 256) == MOST_MEMORY // memory_of_an_image(
        large, (3, 500, 500)
    )
    assert images_at_once(large, (3, 9000, 9000), 256) == 1


# ---- paths -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a short run over a folder of images."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 200)):
        (tmp_path / "home" / "images" / name).mkdir(parents=True)
        for i in range(5):
            pixels = (level + rng.integers(-40, 40, (12, 12))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "home" / "images" / name / f"{i}.png")
    flags = [
        "--model", "lenet5", "--dataset", f"folder:{tmp_path / 'home' / 'images'}", "--epochs", "1",
        "--backend", "numpy", "--data-dir", str(tmp_path / "home" / "data"),
    ]  # fmt: skip
    config = Config.resolve(vars(parse(flags)))
    dataset = data.load(config.dataset, validation=config.validation)
    folder, experiment = RunFolder(tmp_path / "run"), Experiment(config, dataset)
    folder.path.mkdir()
    training.begin(folder, experiment, overwrite=False)
    training.train(folder, experiment, make_console())
    return folder.path


def test_best_tells_nobody_where_the_authors_files_lie(run: Path, tmp_path: Path) -> None:
    content = (run / "best.safetensors").read_bytes()
    assert str(tmp_path).encode() not in content
    assert checkpoint.load(run / "best.safetensors").config["dataset"] == "folder:images"
    assert checkpoint.load(run / "checkpoint.safetensors").config["dataset"].endswith("home/images")
    given = {
        "dataset": "folder:~/me/cats", "data_dir": "/home/me/data", "init_from": "../w.pth",
        "recipe": "a/mine.toml", "augment": "a/b", "lr": 0.1, "model": None,
    }  # fmt: skip
    assert without_folders(given) == given | {
        "dataset": "folder:cats", "data_dir": "data", "init_from": "w.pth", "recipe": "mine.toml",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["best.safetensors", "checkpoint.safetensors"])
def test_a_folder_is_read_if_the_runs_own_settings_name_it_or_the_user(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main(["--checkpoint", str(run / name)])
    assert "dark" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    alone = tmp_path / "elsewhere" / name
    shutil.copy(run / name, alone)
    message = line_of(capsys, lambda: evaluate.main(["--checkpoint", str(alone)]))
    assert message.startswith(f"{alone}: its dataset is folder:")
    assert message.endswith(
        "which no config.json beside it confirms: name the folder with --dataset folder:DIR"
    )
    evaluate.main(["--checkpoint", str(alone), "--dataset", f"folder:{tmp_path / 'home' / 'images'}"])
    assert "dark" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    ['{"dataset": "folder:/other", "data_dir": null}', "[]", "{", "[" * 50_000, '{"dataset": 3}'],
)
def test_settings_that_name_another_folder_confirm_nothing(
    settings: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.json").write_text(settings)
    file = run / "checkpoint.safetensors"
    assert "which no config.json beside it confirms" in line_of(
        capsys, lambda: evaluate.main(["--checkpoint", str(file)])
    )


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """With what the dataset would be loaded."""
    found: dict[str, Any] = {}

    def load(name: str, **options: Any) -> None:
        found.update(options, name=name)
        raise data.DataError("stop here")

    monkeypatch.setattr(data, "load", load)
    return found


def test_evaluate_downloads_only_what_the_user_names(
    loaded: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.safetensors"
    forge(file, of_model("fast_cnn", 32, dataset="mnist", data_dir="/etc"))
    for flags, expected in (
        ([], ("mnist", None, False)),
        (["--dataset", "mnist"], ("mnist", None, True)),
        (["--dataset", "mnist", "--data-dir", "here"], ("mnist", "here", True)),
        (["--data-dir", "here"], ("mnist", "here", False)),
    ):
        assert line_of(capsys, lambda flags=flags: evaluate.main(["--checkpoint", str(file), *flags]))
        assert (loaded["name"], loaded["data_dir"], loaded["download"]) == expected


def test_resume_downloads_only_what_the_user_names(
    loaded: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = of_model("fast_cnn", 32, dataset="mnist", data_dir="/etc", backend="numpy")
    forge(tmp_path / "checkpoint.safetensors", replace(saved))
    for flags, expected in (
        ([], ("/etc", False)),
        (["--dataset", "mnist"], ("/etc", False)),
        (["--data-dir", "here"], ("here", True)),
    ):
        command = ["--resume", "--out", str(tmp_path), *flags]
        assert line_of(capsys, lambda command=command: train.main(command)) == "stop here"
        assert (loaded["data_dir"], loaded["download"]) == expected
    assert line_of(capsys, lambda: train.main(["--dataset", "mnist", "--out", str(tmp_path / "new")]))
    assert loaded["download"]


def test_the_runs_own_checkpoint_keeps_what_resume_needs(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert checkpoint.load(run / "checkpoint.safetensors").config["data_dir"] == config["data_dir"]
    train.main(["--resume", "--out", str(run)])
