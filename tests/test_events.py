"""--tensorboard: the event files have the run's figures, also of a resumed run; without the flag, none."""

from __future__ import annotations

import json
import struct
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicnn.app import filter_history, report
from minicnn.app.commands import train
from minicnn.app.events import events, filter_grid
from minicnn.app.run_folder import RunFolder
from minicnn.checkpoint import CheckpointError

SMALL = [
    "--model", "lenet5", "--limit-train", "48", "--limit-test", "20", "--backend", "numpy", "--schedule",
    "constant", "--batch-size", "16", "--validation", "0",
]  # fmt: skip


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value.  A record is a length, its check, the data, and their check."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                found[value.tag][event.step] = value.simple_value
    return found


def test_event_files_have_the_runs_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX")
    run = tmp_path / "run"
    monkeypatch.setattr(report, "draw", lambda _plot, path, *_: Image.new("RGB", (4, 3)).save(path, "PNG"))
    train.main([*SMALL, "--epochs", "1", "--out", str(run)])
    assert not (run / "tensorboard").exists()
    train.main([*SMALL, "--epochs", "2", "--out", str(run), "--resume", "--tensorboard"])
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = scalars(run / "tensorboard")
    assert found["loss/train"] == {6: pytest.approx(history[1]["train_loss"], rel=1e-6)}
    assert found["lr"] == {6: pytest.approx(history[1]["lr"], rel=1e-6)}
    assert sorted(found["loss/batch"]) == [4, 5, 6]
    assert np.mean(list(found["loss/batch"].values())) == pytest.approx(history[1]["train_loss"], rel=1e-5)
    accuracy = json.loads((run / "report.json").read_text())["accuracy"]
    assert found["report/accuracy"] == {6: pytest.approx(accuracy, rel=1e-6)}
    assert {"filters", "report/confusion_matrix"} < found.keys()
    assert [epoch for epoch, _ in filter_history.read(run / filter_history.FILTERS)] == [0, 1, 2]
    RunFolder(run).clear()
    assert {path.name for path in run.rglob("*")} == {"tensorboard", ".lock"}


def test_without_tensorboardx_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"--tensorboard needs .*: pip install 'minicnn\[tensorboard\]'"):
        train.main([*SMALL, "--tensorboard", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_of_several_processes_only_the_first_writes(tmp_path: Path) -> None:
    second: Any = SimpleNamespace(
        config=SimpleNamespace(tensorboard=True), group=SimpleNamespace(is_first=False)
    )
    with events(tmp_path, second) as log:
        log.step(second)
        log.epoch(second)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3, 1, 5, 5), (9, 3, 3, 3), (200, 4, 1, 1)])
def test_filters_stand_side_by_side(shape: tuple[int, ...]) -> None:
    grid = filter_grid(np.random.default_rng(0).normal(size=shape))
    side = 24 // shape[2] * shape[2] + 2
    assert grid.shape == (-(-min(shape[0], 64) // 8) * side, 8 * side, 3)
    assert grid.dtype == np.uint8


def experiment(epoch: int, epochs: int, weight: float = 1.0) -> Any:
    state = {"conv1.weight": np.full((2, 1, 3, 3), weight + epoch, np.float32)}
    return SimpleNamespace(
        epoch=epoch, batch=0, done=epoch == epochs, config=SimpleNamespace(epochs=epochs),
        state_dict=lambda: state,
    )  # fmt: skip


def test_a_run_keeps_filters_of_some_twenty_epochs(tmp_path: Path) -> None:
    path = tmp_path / "filters.safetensors"
    for epoch in range(44):
        filter_history.keep(path, experiment(epoch, 43))
    assert [epoch for epoch, _ in filter_history.read(path)] == [*range(0, 43, 3), 43]
    filter_history.keep(
        path, experiment(6, 43, weight=100)
    )  # a run that went back to an earlier checkpoint
    assert [(epoch, weight[0, 0, 0, 0]) for epoch, weight in filter_history.read(path)] == [
        (0, 1), (3, 4), (6, 106),
    ]  # fmt: skip
    path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="torn"):
        filter_history.read(path)
    filter_history.keep(path, experiment(9, 43))
    assert [epoch for epoch, _ in filter_history.read(path)] == [9]


def test_other_tensors_are_no_filters(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path, good = tmp_path / "f.safetensors", np.ones((2, 1, 3, 3), np.float32)
    for tensors in (
        {}, {"epoch_0000": good[0]}, {"conv": good}, {"epoch_0000": good * np.inf},
        {"epoch_0000": good, "epoch_0001": good[:1]},
    ):  # fmt: skip
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match="expected finite filters of one shape"):
            filter_history.read(path)
