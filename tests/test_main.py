"""The command ``minicnn``: it runs the other commands, and tells what there is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import minicnn
from minicnn.app import main
from minicnn.app.command_line import exit_with

COMMANDS = list(main.COMMANDS)


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m minicnn`` and return its exit status and output."""
    line = [sys.executable, "-W", "error", "-m", "minicnn", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def test_version() -> None:
    done = called("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"minicnn {minicnn.__version__}\n", "")


def test_help_lists_each_command_in_a_line() -> None:
    done = called("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m minicnn COMMAND [options]\n")
    lines = done.stdout.splitlines()
    for name, text in main.COMMANDS.items():
        assert f"  {name:<10}{text}" in lines


@pytest.mark.parametrize(
    ("arguments", "got"),
    [([], ""), (["trian", "--epochs", "3"], ", got trian"), (["--epochs"], ", got --epochs")],
)
def test_what_is_no_command_is_one_clear_error(arguments: list[str], got: str) -> None:
    done = called(*arguments)
    expected = "train, evaluate, predict, export, look, mislabels, preview, doctor, verify"
    message = f"error: expected a command, one of {expected}{got} (--help lists all options)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_begins_with_how_it_was_called(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for prog, run in (
        (f"minicnn {name}", lambda: main.run_command([name, "--help"], "minicnn")),
        (f"python -m minicnn.{name}", lambda: import_module(f"minicnn.{name}").main(["--help"])),
    ):
        with pytest.raises(SystemExit) as stop:
            run()
        assert stop.value.code == 0
        usage, _, said[prog] = capsys.readouterr().out.partition("\n\n")
        assert usage.startswith(f"usage: {prog}")
    assert len(set(said.values())) == 1, "the same help, however it is called"


def test_arguments_and_errors_pass_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(SystemExit) as stop:
        exit_with(
            lambda: main.run_command(["evaluate", "--checkpoint", missing, "--backend", "numpy"], "minicnn")
        )
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {missing}: there is no such file\n"


def test_the_console_script_is_this_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"minicnn": "minicnn.app.main:main"}
    monkeypatch.setattr("sys.argv", ["minicnn", "preview", "--help"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: minicnn preview --augment LIST [options]\n")
