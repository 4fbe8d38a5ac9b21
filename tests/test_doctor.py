"""``minicnn doctor``: what each backend has, lacks and needs, for people and for machines."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import minicnn
from minicnn.app.commands import doctor
from minicnn.backends import available_backends, choice


def test_every_part_is_reported() -> None:
    found = {finding.part: finding for finding in doctor.findings()}
    parts = {
        "minicnn", "Python", "NumPy", "CPU", "threads", "torch", "C++ compiler", "ninja", "build cache",
        "cpp module", "bfloat16", "CUDA toolkit", "backend numpy", "backend cpp", "backend auto",
    }  # fmt: skip
    assert parts <= found.keys()
    assert found["backend numpy"].remedy == ""
    for finding in found.values():
        assert finding.found, finding.part


def test_works_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None\nfrom minicnn.doctor import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={"PATH": "", "COLUMNS": "200"},
    )  # fmt: skip
    assert "pip install torch ninja setuptools" in done.stdout
    assert "apt install g++" in done.stdout
    assert "takes numpy" in done.stdout


def test_json_has_all_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main(["--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "findings": [finding._asdict() for finding in doctor.findings()],
        "backends": available_backends(),
        "auto": choice()[0],
    }
    (first, *_) = printed["findings"]
    assert first["part"] == "minicnn"
    assert first["found"].startswith(f"{minicnn.__version__} at ")
