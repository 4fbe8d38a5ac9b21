"""scripts/gpu.py as far as it goes without a card: its report, its time limits, its timings emulated."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minicnn.backends import cuda_build
from scripts import gpu

ROWS = [
    {"what": "net", "phase": "step", "tf32": False, "error": 1e-6, "minicnn": 2.0, "torch": 3.0},
    {"what": "net", "phase": "step", "tf32": True, "minicnn": 1.0, "torch": 3.0},
    {"what": "net", "phase": "step", "tf32": False, "torch.compile": 1.5},
]


def test_rows_of_the_same_thing_become_one() -> None:
    first, second = gpu.merged(ROWS)
    assert first == {**ROWS[0], "torch.compile": 1.5}
    assert second == ROWS[1]


def test_what_was_left_out_is_named() -> None:
    sections = {
        "build": {"status": "done", "note": "", "seconds": 9.0},
        "tests": {"status": "stopped", "note": "x", "seconds": 80.0},
        "sanitizer": {"status": "left out", "note": "not installed", "seconds": 0.0},
    }
    assert gpu.left_out(sections) == [
        "tests: stopped after 80 s", "sanitizer: not installed",
        "operations: not begun", "steps: not begun", "compiled: not begun",
    ]  # fmt: skip


def test_table_names_the_device_and_the_best_peer() -> None:
    report = {
        "device": "NVIDIA Test", "torch": "2", "cuda": "13.0", "python": "3.12",
        "sections": {"build": {"status": "done", "note": "built", "seconds": 9.0}},
        "rows": gpu.merged(ROWS), "left_out": ["steps: not begun"],
    }  # fmt: skip
    lines = gpu.table(report).splitlines()
    assert lines[0].startswith("NVIDIA Test, torch 2, CUDA 13.0, Python 3.12")
    assert lines[2].split() == ["net", "step", "FP32", "2.000", "3.000", "-", "1.500", "0.75", "1.0e-06"]
    assert lines[3].split() == ["net", "step", "TF32", "1.000", "3.000", "-", "-", "3.00", "-"]
    assert lines[-2:] == ["build: done in 9 s; built", "left out: steps: not begun"]


def test_a_section_that_hangs_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    child = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    parent = f"import subprocess, sys; print('on'); subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    done = gpu.run([sys.executable, "-u", "-c", parent], 1.0)
    assert time.monotonic() - start < 2.5
    assert (done["status"], done["note"]) == ("stopped", "on")
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_a_section_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    done = gpu.run([sys.executable, "-c", "raise SystemExit('because')"], 60)
    assert (done["status"], done["note"]) == ("failed", "because")
    assert "because" in capsys.readouterr().err
    assert gpu.run(["unused"], 0)["status"] == "left out"


def test_benchmarks_are_off_where_tests_run_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-benchmark warns of xdist, and a warning ends the tests before the first one."""
    for installed in (None, "xdist"):
        monkeypatch.setattr(gpu, "find_spec", lambda _name, there=installed: there)
        command = " ".join(gpu.tests_command())
        assert (" -n " in command) == (" -p no:benchmark" in command) == (installed is not None)
    lines = (gpu.ROOT / "Makefile").read_text().splitlines()
    parallel = [line for line in lines if "pytest" in line and " -n " in line]
    assert parallel
    for line in parallel:
        assert "-p no:benchmark" in line


@pytest.mark.skipif(cuda_build.missing_gpu() is None, reason="this machine has a GPU")
def test_without_a_gpu_the_reason_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CUDA_EMULATION", "0")
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["sections"]["build"] | {"seconds": 0} == {
        "status": "failed", "note": cuda_build.missing_gpu(), "seconds": 0,
    }  # fmt: skip
    assert "tests: not begun" in report["left_out"]
    assert (tmp_path / "gpu.txt").read_text().startswith("no device")


@pytest.mark.skipif(not cuda_build.emulated(), reason="needs MINICNN_CUDA_EMULATION=1")
def test_timings_agree_with_torch_on_the_emulated_cuda(tmp_path: Path) -> None:
    from scripts import gpu_timings

    rows: list[dict[str, Any]] = []
    gpu_timings.operations(rows.append)
    gpu_timings.steps(rows.append, ("lenet5",))
    assert len(rows) > 40
    for row in rows:
        assert row["minicnn"] > 0
        assert row["torch"] > 0
        assert row["error"] < (1e-2 if row["tf32"] else 1e-4), row
    assert {row["phase"] for row in rows} == {"forward", "backward", "step", "inference"}
    gpu.main(["--out", str(tmp_path), "--sections", "build"])
    assert (tmp_path / "gpu.txt").read_text().startswith("cuda (emulated on the CPU), torch")
