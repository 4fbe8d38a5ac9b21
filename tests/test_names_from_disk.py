"""The commands on folders and files whose names a stranger chose."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from minicnn import checkpoint, distributed, evaluate, predict, train
from minicnn.app import training
from minicnn.app.command_line import Interrupted, exit_with, make_console
from minicnn.app.commands.train import _folder_name
from minicnn.app.run_folder import RunFolder

ESCAPES = "\x1b[31mred\x1b[0m\x07"
NUMPY = ["--backend", "numpy", "--threads", "1"]
SMALL = [*NUMPY, "--model", "lenet5", "--epochs", "1", "--batch-size", "4", "--validation", "0"]


def make_classes(root: Path, *names: str) -> Path:
    """A folder of two images for each class."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (12, 12), 60 * number + 20 * i).save(root / name / f"{i}.png")
    return root


def run(*arguments: object, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command as a shell runs it, whose output may be redirected; Python's warnings are errors."""
    line = " ".join(shlex.quote(str(one)) for one in (sys.executable, "-W", "error", "-m", *arguments))
    return subprocess.run(
        ["sh", "-c", f"{line} {redirect}"], capture_output=True, timeout=120, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def fails(capsys: pytest.CaptureFixture[str], command: object, *arguments: object) -> str:
    """The one line on stderr of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: command.main([str(a) for a in arguments]))  # type: ignore[attr-defined]
    lines = [line for line in capsys.readouterr().err.split("\n") if not line.startswith("backend: ")]
    assert stop.value.code == 2
    assert lines[1:] == [""]
    return lines[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on classes with every kind of name."""
    root = tmp_path_factory.mktemp("data")
    names = ["$1 to $5", "[red]", ":cat:", "图片", ESCAPES, "a\nb", "\\frac{$", "_hidden"]
    data = make_classes(root / os.fsdecode(b"$x$ \x1b[31m[b] \xe9"), *names)
    out = root / "run"
    done = run("minicnn.train", *SMALL, "--dataset", f"folder:{data}", "--out", out, COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, b"")
    (root / "stdout").write_bytes(done.stdout)
    return out


def test_training_shows_every_name_as_plain_text(trained: Path) -> None:
    said = (trained.parent / "stdout").read_text(encoding="utf-8")
    for shown in ("$1 to $5", "[red]", ":cat:", "图片", r"\x1b[31mred\x1b[0m\x07", r"a\x0ab"):
        assert f"│ {shown} " in said
    assert r"/$x$ \x1b[31m[b] \udce9, " in said
    assert "\x1b" not in said
    assert "\x07" not in said
    for plot in ("curves", "confusion_matrix", "mistakes", "filters"):
        assert (trained / f"{plot}.png").exists()


def test_an_ascii_terminal_shows_escapes_of_what_it_lacks(trained: Path) -> None:
    done = run(
        "minicnn.evaluate", *NUMPY, "--checkpoint", trained / "best.safetensors",
        PYTHONIOENCODING="ascii", PYTHONUTF8="1",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert r"\u56fe\u7247" in done.stdout.decode("ascii")


def test_training_begins_in_an_ascii_terminal(tmp_path: Path) -> None:
    data = make_classes(tmp_path / "data", "图片", "é")
    done = run(
        "minicnn.train", *SMALL, "--dataset", f"folder:{data}", "--dry-run",
        LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert "2 test images, 1x12x12, 2 classes" in done.stdout.decode("ascii")


@pytest.mark.parametrize("redirect", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(redirect: str, trained: Path) -> None:
    done = run("minicnn.evaluate", *NUMPY, "--checkpoint", trained / "best.safetensors", redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_output_that_cannot_be_written_is_one_error_line(trained: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    file = trained / "best.safetensors"
    done = run("minicnn.evaluate", *NUMPY, "--checkpoint", file, redirect=">/dev/full")
    assert done.returncode == 2
    assert done.stderr.decode() == "error: [Errno 28] No space left on device\n"


def test_a_strangers_checkpoint_sends_no_escape_sequences(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / os.fsdecode(f"{ESCAPES}.png".encode() + b"\xe9.png")
    Image.new("L", (12, 12)).save(image)
    predict.main([*NUMPY, "--checkpoint", str(trained / "best.safetensors"), str(image), "--top", "8"])
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert said.count(r"\x1b[31mred\x1b[0m\x07") == 2  # the file's name and the class's
    predict.main(
        [*NUMPY, "--checkpoint", str(trained / "best.safetensors"), str(image), "--json", "--top", "8"]
    )
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["image"] == str(image)
    assert ESCAPES in {one["class"] for one in answer["predictions"]}
    other = make_classes(tmp_path / "other", "a", "b")
    arguments = [*NUMPY, "--checkpoint", trained / "best.safetensors", "--dataset", f"folder:{other}"]
    assert r"\x1b[31mred\x1b[0m\x07" in fails(capsys, evaluate, *arguments)
    saved = checkpoint.load(trained / "best.safetensors")
    saved.model[ESCAPES] = np.zeros(1, np.float32)
    checkpoint.save(tmp_path / "c.safetensors", replace(saved, config=saved.config | {ESCAPES: 1}))
    message = fails(capsys, evaluate, *NUMPY, "--checkpoint", tmp_path / "c.safetensors")
    assert message.startswith("error: ")
    assert r"\x1b[31mred\x1b[0m\x07" in message


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_from_elsewhere_send_no_escape_sequences(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {f"fc1{ESCAPES}": np.zeros(1, np.float32)}
    file = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, file)
    else:
        save_file(state, file)
    message = fails(
        capsys, train, *SMALL, "--limit-train", 20, "--limit-test", 8, "--init-from", file, "--dry-run"
    )
    assert r"fc1\x1b[31mred\x1b[0m\x07, which the model has not" in message
    assert "\x1b" not in message


def test_a_message_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    name = "two  blanks\u2028\x85\rand\u3000more"

    def command() -> None:
        raise ValueError(f"{name}: expected\n  an image")

    with pytest.raises(SystemExit):
        exit_with(command)
    shown = r"two  blanks\u2028\x85\x0dand" + "\u3000more"
    assert capsys.readouterr().err == f"error: {shown}: expected an image\n"


@pytest.mark.parametrize("path", ["a b/it's", "图片", "line\nbreak \x1b[1m"])
def test_the_command_that_goes_on_can_be_pasted(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(training, "_train_epoch", stop)
    experiment = Namespace(
        done=False, epoch=0, batch=0, config=Namespace(tensorboard=False), group=distributed.ALONE
    )
    folder = RunFolder(Path(path))
    monkeypatch.setattr(folder, "save", lambda _: None)
    with pytest.raises(Interrupted) as caught:
        training.train(folder, experiment, make_console())  # type: ignore[arg-type]
    command = str(caught.value).split("\n")[1]
    done = subprocess.run(["bash", "-c", f"printf '%s|' {command}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout).strip().split("|")[-2] == path


# ---- the default folder ----------------------------------------------------------------------------


def test_distinct_datasets_have_distinct_default_folders() -> None:
    folders = []
    for dataset in (
        "digits", "folder:digits", "folder:图片", "folder:写真", "folder:a b", "folder:a-b",
        "folder:a/b", "folder:/a/b", "folder:a_b", "folder:.", "folder:..", "folder:-", "folder:café",
        "folder:cafe\u0301", f"folder:{'图' * 200}a", f"folder:{'图' * 200}b", f"folder:x{'图' * 200}a",
        f"folder:{os.fsdecode(bytes([0xe9]))}", f"folder:{os.fsdecode(bytes([0xe8]))}", "folder:\x1b",
    ):  # fmt: skip
        name = _folder_name(Namespace(recipe=None, model="lenet5", dataset=dataset))
        assert "/" not in name
        assert len(os.fsencode(name)) <= 255
        folders.append(name)
    assert len(set(folders)) == len(folders)
    assert "lenet5-folder-图片" in folders
    assert "lenet5-digits" in folders
    assert _folder_name(Namespace(recipe=None, model="m", dataset="folder:./pics/")) == "m-folder-pics"
