"""scripts/gpu.py as far as it goes without a card: its report, its time limits, its timings emulated."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minicnn.backends import cuda_build
from scripts import gpu, gpu_products, gpu_report, gpu_turns

NET = {"what": "net", "phase": "run"}
ROWS = [
    NET | {"precision": "float32", "error": 1e-6, "minicnn": 2.0, "torch": 3.0},
    NET | {"precision": "bfloat16", "minicnn": 1.0, "torch": 3.0},
    NET | {"precision": "float32", "compiled": 1.5},
    NET | {"precision": "bfloat16", "captured": 0.5},
]


def test_rows_of_the_same_thing_become_one() -> None:
    first, second = gpu_report.merged(ROWS)
    assert first == ROWS[0] | {"compiled": 1.5}
    assert second == ROWS[1] | {"captured": 0.5}


def test_the_best_is_sought_in_every_precision() -> None:
    (found,) = gpu_report.best(ROWS)
    assert found == NET | {
        "minicnn": 1.0, "precision": "bfloat16", "peer": 0.5, "peer is": "captured, bfloat16",
        "peer / minicnn": 0.5,
    }  # fmt: skip


def test_what_was_left_out_is_named() -> None:
    sections = {
        "build": {"status": "done", "note": "", "seconds": 9.0},
        "tests": {"status": "stopped", "note": "x", "seconds": 80.0},
        "memcheck": {"status": "left out", "note": "not installed", "seconds": 0.0},
    }
    assert gpu_report.left_out(sections, [*sections, "steps"]) == [
        "tests: stopped after 80 s", "memcheck: not installed", "steps: not begun",
    ]  # fmt: skip


def test_text_names_the_device_the_best_peer_and_what_failed() -> None:
    lines = [
        {"device": "NVIDIA Test", "torch": "2", "cuda": "13.0", "python": "3.12"}, *ROWS,
        {"training": "r", "precision": "tf32", "accuracy": 0.941, "seconds": 5.5,
         "seconds in epochs": 3.2, "images a second": 300_000},
        {"note": "net, float32, captured: RuntimeError: because"},
    ]  # fmt: skip
    sections = {"build": {"status": "done", "note": "built", "seconds": 9.0}}
    printed = gpu_report.text(gpu_report.assembled(lines, sections, ["build", "steps"])).splitlines()
    assert printed[0].startswith("NVIDIA Test, torch 2, CUDA 13.0, Python 3.12")
    assert " ".join(printed[2].split()) == "net run float32 2.000 3.000 - - - 1.500 0.75 1.0e-06"
    assert " ".join(printed[3].split()) == "net run bfloat16 1.000 3.000 - 0.500 - - 0.50 -"
    assert " ".join(printed[6].split()) == "net run 1.000 bfloat16 0.500 captured, bfloat16 0.50"
    assert "r in tf32: 94.10% in 5.5 s, of which epochs 3.2 s, 300,000 images a second" in printed
    assert printed[-3:] == [
        "build: done in 9 s; built", "note: net, float32, captured: RuntimeError: because",
        "left out: steps: not begun",
    ]  # fmt: skip


def test_a_profile_finds_launches_gaps_and_kernels() -> None:
    from scripts import gpu_profile

    def kernel(name: str, start: float, microseconds: float) -> dict[str, Any]:
        return {"cat": "kernel", "name": name, "ts": start, "dur": microseconds}

    two_steps = [
        kernel("void minicnn::(anonymous namespace)::a(int)", 0, 100), kernel("b", 150, 50),
        kernel("b", 170, 10), kernel("a(int)", 200, 100), kernel("b", 400, 40),
    ]  # fmt: skip
    assert gpu_profile.summary(two_steps, 2) == {
        "launches": 2.5, "whole": 0.22, "gaps": 0.075,
        "kernels": [["a(int)", 1.0, 0.1], ["b", 1.5, 0.05]],
    }  # fmt: skip
    with pytest.raises(ValueError, match="no kernel"):
        gpu_profile.summary([], 2)


def test_nobody_measures_before_all_have_prepared_and_who_is_slow_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = """if True:
        import sys, time
        from pathlib import Path
        from scripts.gpu_turns import Turns
        def tell(word):
            with open(sys.argv[2], "a") as file: file.write(word + "\\n")
        with Turns(Path(sys.argv[1]), 2.5) as turns:
            time.sleep(float(sys.argv[3]))
            tell("prepared")
            with turns.alone():
                tell("begin")
                time.sleep(0.1)
                tell("end")
    """
    commands = {
        name: [sys.executable, "-c", program, str(tmp_path / "lock"), str(log), seconds]
        for name, seconds in {"quick": "0.1", "slower": "0.5", "too slow": "9"}.items()
    }
    assert gpu_turns.run_all(commands, 2.5) == {"too slow": "not ready after 2 s"}
    assert log.read_text().split() == ["prepared", "prepared", "begin", "end", "begin", "end"]


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
def test_batches_of_a_recipe_are_timed_beside_its_step() -> None:
    from scripts import gpu_batches

    rows: list[dict[str, Any]] = []
    gpu_batches.batches(rows.append, "float32")
    expected = [
        ("fashion-94, batch 2", "step"),
        *(
            ("fashion-94, images on the " + place, phase)
            for place in ("card", "host")
            for phase in ("batch", "both")
        ),
    ]
    assert [(row["what"], row["phase"]) for row in rows] == expected
    assert all(row["minicnn"] > 0 for row in rows)
    printed = gpu_report.text(gpu_report.assembled(rows, {}, []))
    assert "fashion-94, images on the host       both       float32" in printed


@pytest.mark.skipif(not cuda_build.emulated(), reason="needs MINICNN_CUDA_EMULATION=1")
def test_timings_agree_with_torch_on_the_emulated_cuda(tmp_path: Path) -> None:
    from scripts import gpu_nets, gpu_operations

    rows: list[dict[str, Any]] = []
    gpu_operations.operations(rows.append, ["float32"])
    gpu_nets.steps(rows.append, "lenet5", ["float32"])
    rows = gpu_report.merged(rows)
    assert len(rows) > 30
    for row in rows:
        assert row["minicnn"] > 0
        if row["phase"] != "memory":
            assert row["torch"] > 0
            assert row.get("error", 0) < 1e-4, row
    phases = {"forward", "backward", "step", "run", "inference", "memory"}
    assert {row["phase"] for row in rows} == phases
    gpu.main(["--out", str(tmp_path), "--sections", "build"])
    assert (tmp_path / "gpu.txt").read_text().startswith("cuda (emulated on the CPU), torch")


def test_variants_of_products_replace_texts_that_there_are() -> None:
    core = gpu_products.ROOT / "csrc" / "cuda" / "core"
    for changes in gpu_products.VARIANTS.values():
        for file, text, _ in changes:
            assert text in (core / file).read_text()
