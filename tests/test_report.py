"""The report of a run does not depend on its plots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minicnn import plots, plots_judging
from minicnn.app import report
from minicnn.app.command_line import make_console
from minicnn.app.commands import evaluate, train
from minicnn.app.pages import report_page

SMALL = [
    "--model", "lenet5", "--limit-train", "40", "--limit-test", "20", "--backend", "numpy", "--epochs", "1",
]  # fmt: skip
PLOTS = ("confusion", "mistakes", "curves", "filters")


def fail(path: Path, *_: object) -> None:
    raise RuntimeError(f"no pen\nfor {path.name}")


def test_a_plot_that_fails_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PLOTS:
        monkeypatch.setattr(plots, name, fail)
    monkeypatch.setattr(plots_judging, "reliability", fail)
    monkeypatch.setattr(report_page, "write", fail)
    train.main([*SMALL, "--out", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert "Ankle boot" in said.out
    assert "tested: " in said.out
    assert said.out.endswith("\nplots: none\n")
    files = (
        "confusion_matrix.png", "reliability.png", "mistakes.png", "report.html", "curves.png",
        "filters.png",
    )  # fmt: skip
    lines = [f"warning: {tmp_path / 'run' / file} is not drawn: no pen for {file}" for file in files]
    assert said.err.splitlines() == lines
    assert json.loads((tmp_path / "run" / "report.json").read_text())["images"] == 20
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "mistakes.png").write_bytes(b"of an earlier report")
    arguments = ["--checkpoint", str(tmp_path / "run" / "best.safetensors"), "--backend", "numpy"]
    evaluate.main([*arguments, "--out", str(tmp_path / "e")])
    said = capsys.readouterr()
    assert "Ankle boot" in said.out
    assert len(said.err.splitlines()) == 4
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["report.json"]


def test_the_report_is_printed_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    def touch(path: Path, *_: object) -> None:
        printed.append(capsys.readouterr().out)
        path.touch()

    for name in PLOTS:
        monkeypatch.setattr(plots, name, touch)
    monkeypatch.setattr(plots_judging, "reliability", touch)
    train.main([*SMALL, "--out", str(tmp_path)])
    assert "Ankle boot" in printed[0]
    assert "tested: " in printed[0]
    drawn = capsys.readouterr().out
    page, rest = drawn.split("\n", 1)
    assert page == f"report: {tmp_path / 'report.html'}"
    assert rest.startswith(f"plots: {tmp_path / 'curves.png'}, {tmp_path / 'confusion_matrix.png'}, ")


def test_long_names_are_folded_and_nothing_looks_certain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    scores = {"precision": 0.99999, "recall": 1.0, "f1": 0.00001}
    names = [f"{'long_name_of_a_class_' * 4}{end}" for end in ("one", "two")]
    result = {
        "images": 4, "computed_by": "numpy", "accuracy": 0.99999, "loss": 0.5,
        "macro": scores, "weighted": scores,
        "per_class": [
            {"class": name, "support": 2, **scores, "roc_auc": None, "average_precision": 0.5}
            for name in names
        ],
        "top_k": None, "temperature": None, "uncalibrated": None, "reject": [],
        "calibration": {"expected_calibration_error": 0.1, "negative_log_likelihood": 0.5},
    }  # fmt: skip
    report.show(make_console(), result)
    said = capsys.readouterr().out
    column = "".join(line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│"))
    assert "".join(names) in column
    assert said.count(">99.99 %") == 5
    assert said.count("100.00 %") == said.count("<0.01 %") == 4
