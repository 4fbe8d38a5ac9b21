"""What long work tells: progress of the library, bars of the application, the log, and --quiet."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import data, models
from minicnn.app import progress
from minicnn.app.command_line import exit_with
from minicnn.app.commands import evaluate, train
from minicnn.app.console import PlainConsole
from minicnn.app.prediction import predict_images

SMALL = [
    "--model", "lenet5", "--backend", "numpy", "--epochs", "1", "--limit-train", "40", "--limit-test", "20",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A dataset of two classes with three images each."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (14, 14), 20 * i).save(tmp_path / "data" / name / f"{i}.png")
    return f"folder:{tmp_path / 'data'}"


def test_loading_tells_how_many_images_are_done(folder: str) -> None:
    told: list[tuple[int, int]] = []
    data.load(folder, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(6)]
    told.clear()
    limits = {"limit_train": 3, "limit_test": 2}
    data.load("digits", image_size=9, progress=lambda done, total: told.append((done, total)), **limits)
    assert told == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2)]


def test_what_watches_may_end_the_work(folder: str) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load(folder, progress=stop)


def test_testing_tells_how_many_images_are_done() -> None:
    model = models.create("lenet5", in_channels=1, num_classes=2, image_size=12, backend="numpy", seed=0)
    told: list[tuple[int, int]] = []
    x = np.zeros((1001, 1, 12, 12), np.uint8)
    predict_images(model, x, [0.0], [1.0], lambda done, total: told.append((done, total)))
    assert told == [(done, 1001) for done in (0, 256, 512, 768)]


def test_a_terminal_shows_a_bar_whose_title_is_text() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=100, color_system=None)
    with progress.shown(console, "reading [red]{x}\x07") as show:
        show(3, 8)
    assert r"reading [red]{x}\x07" in file.getvalue()
    assert "3/8" in file.getvalue()
    file.truncate(0)
    with progress.shown(PlainConsole(file=file, force_terminal=True, quiet=True), "reading") as show:
        show(3, 8)
    assert file.getvalue() == ""


def test_without_a_terminal_a_line_is_printed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    file = io.StringIO()
    with progress.shown(PlainConsole(file=file, soft_wrap=True), "reading images") as show:
        show(3, 8)
    assert file.getvalue() == "reading images  3/8\n"
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 60)
    with progress.shown(PlainConsole(file=file), "reading images") as show:
        show(3, 8)
    assert file.getvalue() == "reading images  3/8\n"


def test_quiet_leaves_results_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*SMALL, "--quiet", "--out", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.lstrip().startswith("20 test images, computed by numpy\n")
    assert "\ntested: " in said.out
    for hidden in ("backend: ", "data: ", "model: ", "folder: ", "epoch 1/1"):
        assert hidden not in said.out
    checkpoint = str(tmp_path / "run" / "best.safetensors")
    evaluate.main(["--checkpoint", checkpoint, "--backend", "numpy", "--quiet"])
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("20 images: the test images of fashion-mnist-sample\n")
    assert "backend: " not in said.out
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: evaluate.main(["--checkpoint", str(tmp_path / "none"), "--quiet"]))
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: there is no such file\n"


@pytest.mark.parametrize(("flags", "shown"), [([], "minicnn: building \\x1b[1m\n"), (["--quiet"], "")])
def test_commands_show_the_librarys_log(
    flags: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("minicnn.backends.build")

    def choose(*_: object) -> str:
        log.info("building %s", "\x1b[1m")
        raise ValueError("enough")

    monkeypatch.setattr(train, "choose_backend", choose)
    before = logging.getLogger("minicnn").handlers[:], logging.getLogger("minicnn").level
    with pytest.raises(SystemExit):
        exit_with(command(train.main, [*SMALL, "--dry-run", *flags]))
    assert capsys.readouterr().err == f"{shown}error: enough\n"
    log.info("nobody listens")
    assert capsys.readouterr() == ("", "")
    assert (logging.getLogger("minicnn").handlers, logging.getLogger("minicnn").level) == before


def command(main: Callable[[list[str]], None], arguments: list[str]) -> Callable[[], None]:
    return lambda: main(arguments)
