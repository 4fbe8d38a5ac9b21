"""The commands, run as users run them; errors are checked in this process, which is quicker."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from minicnn import checkpoint, data, doctor, evaluate, export, mislabels, predict, preview, train
from minicnn.app.command_line import exit_with
from minicnn.app.prediction import predict_images
from minicnn.saved_model import load_model

SMALL = [
    "--model",
    "lenet5",
    "--limit-train",
    "256",
    "--limit-test",
    "64",
    "--backend",
    "numpy",
    "--epochs",
    "2",
]
FILES = {
    "config.json", "metrics.jsonl", "checkpoint.safetensors", "best.safetensors", "report.json",
    "curves.png", "confusion_matrix.png", "mistakes.png", "reliability.png", "filters.png",
    "report.html", "filters.safetensors",
}  # fmt: skip


def command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m minicnn.NAME`` and return its exit status and output."""
    line = [sys.executable, "-W", "error", "-m", f"minicnn.{name}", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "lenet5"
    done = command("train", *SMALL, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    return out, done.stdout


def fails(
    capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], None], *arguments: object,
    status: int = 2,
) -> str:  # fmt: skip
    """The message of a command that must fail: one line on stderr, and this exit status."""
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: main([str(a) for a in arguments]))
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("backend: ")]
    assert stop.value.code == status
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# ---- what works ----------------------------------------------------------------------------------


def test_train_writes_all_files_and_says_so(trained: tuple[Path, str]) -> None:
    out, printed = trained
    assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == FILES
    for said in (
        "backend: numpy", "lenet5, 61,706 parameters", "230 training, 26 validation and 64 test images",
        "epoch 2/2", "precision", "recall", "F1", "Ankle boot", "accuracy", str(out / "mistakes.png"),
    ):  # fmt: skip
        assert said in printed
    report = json.loads((out / "report.json").read_text())
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert set(history[0]) == {
        "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "seconds",
        "images_per_second",
    }  # fmt: skip
    assert np.trace(report["confusion_matrix"]) / 64 == report["accuracy"]
    assert sum(row["support"] for row in report["per_class"]) == 64
    assert json.loads((out / "config.json").read_text())["model"] == "lenet5"


def test_best_is_the_epoch_of_the_highest_validation_accuracy(trained: tuple[Path, str]) -> None:
    best, last = (checkpoint.load(trained[0] / f"{name}.safetensors") for name in ("best", "checkpoint"))
    accuracies = [entry["validation_accuracy"] for entry in last.history]
    assert best.best_accuracy == last.best_accuracy == max(accuracies)
    assert best.epoch == accuracies.index(max(accuracies)) + 1
    assert not best.optimizer
    assert last.optimizer


def test_evaluate_gives_the_same_report(trained: tuple[Path, str], tmp_path: Path) -> None:
    file = trained[0] / "best.safetensors"
    done = command("evaluate", "--checkpoint", file, "--out", tmp_path / "e", "--batch-size", 64)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ankle boot" in done.stdout
    assert {p.name for p in (tmp_path / "e").iterdir()} == {
        "report.json",
        "confusion_matrix.png",
        "mistakes.png",
        "reliability.png",
        "report.html",
    }
    there, here = (json.loads((d / "report.json").read_text()) for d in (trained[0], tmp_path / "e"))
    assert here["confusion_matrix"] == there["confusion_matrix"]
    assert here["loss"] == pytest.approx(there["loss"], rel=1e-5)


def test_predict_preprocesses_as_training_does(trained: tuple[Path, str], tmp_path: Path) -> None:
    file = trained[0] / "best.safetensors"
    images = data.load("fashion-mnist-sample").test.x[:3]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image[0]).save(path)
    Image.fromarray(images[0, 0]).convert("RGB").resize((90, 70)).save(tmp_path / "big.jpg")
    done = command("predict", "--checkpoint", file, *paths, tmp_path / "big.jpg", "--json", "--top", 10)
    assert done.returncode == 0
    got = json.loads(done.stdout)
    assert [entry["image"] for entry in got] == [*map(str, paths), str(tmp_path / "big.jpg")]
    saved, model = load_model(file, "numpy")
    logits = predict_images(model, images, saved.mean, saved.std)
    for entry, row in zip(got, logits, strict=False):
        named = {one["class"]: one["probability"] for one in entry["predictions"]}
        expected = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
        np.testing.assert_allclose([named[name] for name in saved.class_names], expected, rtol=1e-4)
        assert list(named.values()) == sorted(named.values(), reverse=True)
    plain = command("predict", "--checkpoint", file, paths[0], "--top", 1)
    assert plain.stdout.startswith(f"{paths[0]}: {got[0]['predictions'][0]['class']} ")
    assert plain.stdout.count("%") == 1


def test_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train.main([*SMALL, "--dry-run"])
    printed = capsys.readouterr().out
    assert "multiply-adds" in printed
    assert "one epoch would take about" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_colour_images_that_are_not_square(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for name, level in (("dark", 60), ("light", 200)):
            (tmp_path / "d" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = (level + rng.integers(-40, 40, (16, 24, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "d" / part / name / f"{i}.png")
    out = tmp_path / "r"
    arguments = ["--model", "lenet5", "--batch-size", "4", "--epochs", "5", "--backend", "numpy"]
    train.main([*arguments, "--dataset", f"folder:{tmp_path / 'd'}", "--out", str(out)])
    assert "10 training, 2 validation and 6 test images, 3×16×24, 2 classes" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["class_names"] == ["dark", "light"]
    image = tmp_path / "d" / "test" / "light" / "0.png"
    predict.main(["--checkpoint", str(out / "best.safetensors"), str(image), "--json"])
    answer = json.loads(capsys.readouterr().out)[0]["predictions"]
    assert {one["class"] for one in answer} == {"dark", "light"}
    evaluate.main(["--checkpoint", str(out / "checkpoint.safetensors")])
    assert "light" in capsys.readouterr().out


def test_threads_hold_for_blas_and_for_a_torch_imported_later() -> None:
    code = """if True:
        import minicnn, threadpoolctl
        minicnn.set_num_threads(1)
        print({pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
    """
    if importlib.util.find_spec("torch"):
        code += """
        import torch
        print(torch.get_num_threads())
        minicnn.set_num_threads(2)
        print(torch.get_num_threads())
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["{1}"], ["{1}", "1", "2"])


@pytest.mark.parametrize(
    "module", [train, evaluate, predict, export, mislabels, preview, doctor], ids=lambda m: m.__name__
)
def test_help_tells_what_holds_without_an_option(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    usage, _, options = capsys.readouterr().out.partition("options:")
    assert usage.startswith(f"usage: python -m {module.__name__}")
    for option in options.split("\n  --")[1:]:
        name, value = option.split()[:2]
        takes_a_value = value.isupper() or value.startswith("{")
        assert not takes_a_value or "(default:" in " ".join(option.split()) or f"--{name} " in usage, option


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "argument --epochs: expected a whole number of at least 1, got 0"),
        (["--lr", "0"], "argument --lr: expected a number above 0, got 0"),
        (["--lr", "nan"], "argument --lr: expected a number above 0, got nan"),
        (["--lr", "inf"], "argument --lr: expected a number above 0, got inf"),
        (["--momentum", "1"], "argument --momentum: expected a number of at least 0 and below 1, got 1"),
        (["--momentum", "0.5"], "--momentum is for sgd and rmsprop, not for --optimizer adam"),
        (["--nesterov"], "--nesterov is for sgd, not for --optimizer adam"),
        (["--model", "vgg99"], "argument --model: invalid choice: 'vgg99'"),
        (["--dataset", "imagenot"], "'imagenot'"),
        (["--dataset", "folder:/does/not/exist"], "/does/not/exist"),
        (["--image-size", "5"], "[lenet5] image_size: expected at least 12, got (5, 5)"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--resume", "--overwrite"], "not allowed with argument"),
    ],
)
def test_train_refuses(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = SMALL if "--epochs" not in arguments else SMALL[:-2]
    assert message in fails(capsys, train.main, *given, *arguments, "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_finished_run_is_not_destroyed(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained[0]
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    message = fails(capsys, train.main, *SMALL, "--out", out)
    assert message.startswith(f"{out} already holds a run: --resume continues it")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed", "1"], ["--seed 0, got 1"]),
        (
            ["--batch-size", "64", "--model", "simple_cnn"],
            ["--batch-size 128, got 64", "--model lenet5, got simple_cnn"],
        ),
        (["--epochs", "9"], ["--epochs 2, got 9", "only --schedule constant lets --epochs change"]),
        (["--no-fuse"], ["--no-fuse False, got True"]),
        (["--limit-train", "128"], ["--limit-train 256, got 128"]),
    ],
)
def test_resume_refuses_what_alters_the_run(
    arguments: list[str], named: list[str], trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, train.main, "--resume", "--out", trained[0], *arguments)
    for text in ["--resume: expected the run's own", *named]:
        assert text in message


def test_two_runs_in_one_folder(trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    with (trained[0] / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is in use by another run" in fails(capsys, train.main, "--resume", "--out", trained[0])


def test_divergence_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    arguments = [*SMALL, "--lr", "1e30", "--save-every", "0", "--out", out]
    message = fails(capsys, train.main, *arguments, status=3)
    assert message.startswith("training diverged in epoch 1, batch ")
    assert "Try a lower --lr (it was 1e+30), set --clip-norm 1, or check the data. " in message
    assert message.endswith(" The last good checkpoint is kept.")
    state = checkpoint.load(out / "checkpoint.safetensors").model
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.parametrize("main", [evaluate.main, predict.main])
def test_bad_checkpoints_are_named(
    main: Callable[[list[str]], None], trained: tuple[Path, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    image = [tmp_path / "x.png"] if main is predict.main else []
    file = tmp_path / "c.safetensors"
    assert "c.safetensors: there is no such file" in fails(capsys, main, "--checkpoint", file, *image)
    file.write_bytes((trained[0] / "best.safetensors").read_bytes()[:-100])
    assert "c.safetensors is torn" in fails(capsys, main, "--checkpoint", file, *image)
    saved = checkpoint.load(trained[0] / "best.safetensors")
    Image.new("L", (28, 28)).save(tmp_path / "x.png")
    checkpoint.save(file, replace(saved, config=saved.config | {"lr": "0.1"}))
    message = fails(capsys, main, "--checkpoint", file, *image)
    assert message.endswith("c.safetensors: its settings: lr: expected float, got '0.1'")
    saved.model["fc3.bias"] = saved.model["fc3.bias"][:9]
    checkpoint.save(file, saved)
    message = fails(capsys, main, "--checkpoint", file, *image)
    assert message.endswith("c.safetensors: fc3.bias: expected float32 (10,), got float32 (9,)")
    saved.config["model"] = "nosuch"
    checkpoint.save(file, saved)
    assert "c.safetensors: its model cannot be made" in fails(capsys, main, "--checkpoint", file, *image)


def test_evaluate_refuses_other_classes(
    trained: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (28, 28), 10 * i).save(tmp_path / part / name / f"{i}.png")
    arguments = ["--checkpoint", trained[0] / "best.safetensors", "--dataset", f"folder:{tmp_path}"]
    message = fails(capsys, evaluate.main, *arguments)
    assert "test: expected classes that were learnt, T-shirt/top, Trouser, " in message
    assert message.endswith("cat, dog")


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    message = fails(capsys, train.main, *SMALL, "--out", tmp_path / "file" / "r")
    assert message.startswith(f"cannot make the folder {tmp_path / 'file' / 'r'}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    message = fails(capsys, train.main, *SMALL, "--out", tmp_path)
    assert message == f"cannot write to {tmp_path}: Permission denied"


def test_errors_of_the_real_command_have_no_traceback(tmp_path: Path) -> None:
    done = command("evaluate", "--checkpoint", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none'}: there is no such file\n"
