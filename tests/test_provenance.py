"""What config.json tells about how a run was computed; and that --resume does not mind."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKENDS

import minicnn
from minicnn import get_backend, train
from minicnn.app import provenance
from minicnn.app.settings import Config

SMALL = ["--model", "lenet5", "--limit-train", "64", "--limit-test", "32", "--backend", "numpy"]


def test_a_run_records_what_computed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    arguments = [*SMALL, "--schedule", "constant", "--out", str(tmp_path / "run")]
    train.main([*arguments, "--epochs", "1"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["versions"] == {
        "minicnn": minicnn.__version__, "python": platform.python_version(), "numpy": np.__version__,
    }  # fmt: skip
    assert config["computed_by"] == "numpy"
    assert config["processor"]
    written = datetime.fromisoformat(config["time"])
    assert written.utcoffset() == timedelta(0)
    assert before <= written <= datetime.now(UTC)
    settings = {field.name for field in fields(Config)}
    assert settings.isdisjoint(provenance.about(get_backend("numpy")))
    assert settings < config.keys()

    monkeypatch.setattr(minicnn, "__version__", "9.9.9")
    train.main([*arguments, "--epochs", "2", "--resume"])
    resumed = json.loads((tmp_path / "run" / "config.json").read_text())
    assert resumed["versions"]["minicnn"] == "9.9.9"
    assert resumed["epochs"] == 2


@pytest.mark.skipif("cpp" not in BACKENDS, reason="cpp is not among the backends under test")
def test_torch_is_named_where_it_is_used() -> None:
    import torch

    assert provenance.about(get_backend("cpp"))["versions"]["torch"] == torch.__version__


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_of_a_checkout_and_whether_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(folder: Path) -> tuple[str | None, bool | None]:
        monkeypatch.setattr(provenance, "ROOT", folder)
        provenance._commit.cache_clear()
        provenance._is_changed.cache_clear()
        about = provenance.about(get_backend("numpy"))
        return about["commit"], about["uncommitted_changes"]

    assert told(tmp_path) == (None, None)
    git(tmp_path, "init", "--quiet")
    assert told(tmp_path) == (None, None), "there is no commit yet"
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert told(tmp_path) == (head, False)
    (tmp_path / "file").write_text("b")
    assert told(tmp_path) == (head, True)
    (tmp_path / "site-packages").mkdir()
    assert told(tmp_path / "site-packages") == (None, None), "the checkout around it is another project's"
