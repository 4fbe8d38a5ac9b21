"""The examples, and the tutorial's commands, run as readers run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minicnn import checkpoint, train
from minicnn.backends import build
from scripts.site import record

MISSING = build.missing()


def example(name: str, folder: Path) -> str:
    """What an example prints."""
    return record.run(f"python examples/{name}", folder)


def without_progress(output: str) -> list[str]:
    """The lines that do not depend on the machine's speed: a slow run also says how far it is."""
    return [line for line in output.splitlines() if not re.match(r"epoch \d+/\d+  +\d+/\d+  loss ", line)]


def test_tutorial(tmp_path: Path) -> None:
    """Every command works, in order, and the site shows the output of these commands."""
    commands = record.commands()
    shown = json.loads(record.RECORD.read_text(encoding="utf-8"))["runs"]
    assert [run["command"] for run in shown] == commands, "python scripts/site/record.py renews the record"
    printed = [without_progress(record.run(command, tmp_path)) for command in commands]
    for run, lines in zip(shown, printed, strict=True):
        assert len(lines) == len(without_progress(run["output"])), (
            f"{run['command']} prints more or less than shown"
        )
    predictions = next(
        lines for command, lines in zip(commands, printed, strict=True) if "predict" in command
    )
    assert predictions[-1].startswith("unseen/trouser.png: trouser")
    assert (tmp_path / "preview.png").stat().st_size > 1000


def test_own_layer(tmp_path: Path) -> None:
    lines = example("own_layer.py", tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["gradient to x", "gradient to weight"]
    losses = [float(line.split("loss ")[1]) for line in lines if line.startswith("epoch")]
    assert losses[-1] < 0.5 * losses[0]


def test_own_layer_finds_a_wrong_gradient(tmp_path: Path) -> None:
    """The example's check fails if the gradient does not fit the layer."""
    broken = tmp_path / "broken.py"
    text = (record.ROOT / "examples/own_layer.py").read_text(encoding="utf-8")
    assert "upstream * saved, 0" in text
    broken.write_text(text.replace("upstream * saved, 0", "upstream, 0"), encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        record.run(f"python {broken}", tmp_path)
    assert "the gradient to weight is wrong" in failed.value.stderr


@pytest.mark.skipif(MISSING is not None, reason=f"the extension cannot be built: {MISSING}")
def test_add_op(tmp_path: Path) -> None:
    lines = example("add_op/hard_swish.py", tmp_path).splitlines()
    agreed = [line.split(":")[0] for line in lines if line.endswith("agree with torch")]
    backends = ("numpy", "cpp", "cuda (emulated)")
    assert agreed == [f"{b}, {dtype}" for dtype in ("float64", "float32") for b in backends]


@pytest.mark.parametrize("name", ["make_folder.py", "make_photos.py", "train_on_folder.py", "read_run.py"])
def test_help(name: str) -> None:
    """The other examples, which the tutorial runs, say how to call them."""
    done = subprocess.run(
        [sys.executable, record.ROOT / "examples" / name, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python examples/{name}" in done.stdout


@pytest.mark.parametrize("share", ["0", "0.2"])
def test_read_run_marks_the_best_epoch(share: str, tmp_path: Path) -> None:
    flags = ["--model", "lenet5", "--backend", "numpy", "--limit-train", "64", "--limit-test", "20",
             "--epochs", "3", "--validation", share, "--out", f"{tmp_path}/run"]  # fmt: skip
    train.main(flags)
    lines = record.run(f"python examples/read_run.py {tmp_path}/run", tmp_path).splitlines()
    marked = [line.endswith("  <- best") for line in lines if line.startswith("epoch")]
    best = checkpoint.load(tmp_path / "run" / "best.safetensors").epoch
    assert marked == [number == best for number in (1, 2, 3)]
