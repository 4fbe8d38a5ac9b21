"""What a newcomer meets: sdist and wheel, installing without torch, light imports, the README's example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import minicnn
from minicnn.backends import build

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a clean clone, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source)], check=True)
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob(f"minicnn-{minicnn.__version__}-py3-none-any.whl")
    return path


@pytest.fixture(scope="module")
def plain_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but the wheel and what it requires: no torch."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", str(wheel)]
    done = subprocess.run(
        pip, capture_output=True, text=True, env=os.environ | {"PATH": str(folder / "bin")}, check=False
    )
    assert done.returncode == 0, done.stderr
    return python


def tracked(*folders: str) -> set[str]:
    """The files that git has, in these folders or everywhere."""
    command = ["git", "ls-tree", "-r", "-z", "--name-only", "HEAD", *folders]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(filter(None, listed.stdout.split("\0")))


def test_sdist_is_the_tree(distributions: Path) -> None:
    (path,) = distributions.glob(f"minicnn-{minicnn.__version__}.tar.gz")
    with tarfile.open(path) as archive:
        files = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    made = {name for name in files if name.startswith("minicnn.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    left_out = {name for name in tracked() if name.startswith(".ci/")} | {".gitignore"}
    assert files - made == tracked() - left_out
    assert path.stat().st_size < 12e6


def test_wheel_has_the_package_and_its_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    info = {name for name in files if name.startswith(f"minicnn-{minicnn.__version__}.dist-info/")}
    assert files - info == tracked("minicnn") | {f"minicnn/{name}" for name in tracked("csrc")}
    assert sum(name.endswith("LICENSE") for name in info) == 2
    assert "minicnn/py.typed" in files


def test_cpp_from_the_wheel_builds_or_finds_its_module(wheel: Path, tmp_path: Path) -> None:
    """With torch, the wheel's own sources become the module on first use (at once where it is cached)."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
import numpy as np
from minicnn import Trainer, models, optim
from minicnn.backends import build, module_file
print(module_file.source_folder(), build.find_module(build.CPU)[0])
model = models.create("lenet5", in_channels=1, num_classes=10, image_size=28, backend="cpp")
assert Trainer(model, optim.SGD(0.1)).step(np.ones((4, 1, 28, 28), np.float32), np.arange(4)) > 0
print(build.find_module(build.CPU)[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    assert before.startswith(str(tmp_path / "minicnn" / "csrc"))
    assert after == str(build.cached_path()), "other sources than the checkout's"


def test_plain_install_trains_on_numpy(plain_python: Path, tmp_path: Path) -> None:
    command = [
        str(plain_python), "-m", "minicnn.train", "--backend", "numpy", "--model", "lenet5",
        "--epochs", "1", "--limit-train", "256", "--limit-test", "100", "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.json").exists()
    script = subprocess.run(
        [str(plain_python.parent / "minicnn"), "--version"], capture_output=True, text=True, check=True
    )
    assert script.stdout == f"minicnn {minicnn.__version__}\n"
    imports = subprocess.run([str(plain_python), "-c", "import torch"], capture_output=True, check=False)
    assert imports.returncode != 0


def test_cpp_without_torch_says_what_to_install(plain_python: Path, tmp_path: Path) -> None:
    command = [str(plain_python), "-m", "minicnn.train", "--backend", "cpp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torch" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_dependency_has_a_lowest_and_a_highest_version() -> None:
    """And the versions that the tests run with lie in between."""
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = described["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for line in (*described["build-system"]["requires"], *project["dependencies"], *extras):
        wanted = Requirement(line)
        assert sorted(bound.operator for bound in wanted.specifier) == ["<", ">="], line
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            continue  # not all extras are installed
        assert wanted.specifier.contains(installed), line


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
