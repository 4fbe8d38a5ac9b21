"""What a newcomer's machine meets: installing without torch, importing lightly, the README's example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with minicnn by a plain `pip install .`: no torch, no compiler."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", str(source)]
    done = subprocess.run(
        pip, capture_output=True, text=True, env=os.environ | {"PATH": str(folder / "bin")}, check=False
    )
    assert done.returncode == 0, done.stderr
    return python


def test_plain_install_trains_on_numpy(plain_python: Path, tmp_path: Path) -> None:
    command = [
        str(plain_python), "-m", "minicnn.train", "--backend", "numpy", "--model", "lenet5",
        "--epochs", "1", "--limit-train", "256", "--limit-test", "100", "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.json").exists()
    imports = subprocess.run([str(plain_python), "-c", "import torch"], capture_output=True, check=False)
    assert imports.returncode != 0


def test_cpp_without_torch_says_what_to_install(plain_python: Path, tmp_path: Path) -> None:
    command = [str(plain_python), "-m", "minicnn.train", "--backend", "cpp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torch" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_import_is_light() -> None:
    heavy = ["torch", "sklearn", "matplotlib", "scipy", "PIL"]
    code = f"import minicnn, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_readme_example_runs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    shorter = (
        code[1]
        .replace("range(3)", "range(1)")
        .replace('"fashion-mnist-sample"', '"fashion-mnist-sample", limit_train=1000')
    )
    done = subprocess.run(
        [sys.executable, "-c", shorter], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"test accuracy (\d+\.\d)%", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 50


def test_readme_figures_are_the_saved_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "report.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
