"""Tests of assignment 8.  A mended operation must agree with minicnn's on some of its cases."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import bugs
import numpy as np
import pytest

from minicnn.backends.numpy_backend import NumpyBackend
from minicnn.testing import CASES, OPERATIONS, Case, assert_close

HERE = Path(__file__).resolve().parent
PLANTED = json.loads((HERE / "planted" / "bugs.json").read_text())

ENOUGH = 10
"""So many cases show the bugs that any of them shows."""

each_bug = pytest.mark.parametrize(
    "number", [pytest.param(k, marks=getattr(pytest.mark, f"task_8_{k}")) for k in range(1, 6)]
)


def operation(number: int, package: str) -> ModuleType:
    return importlib.import_module(f"{package}.{PLANTED[f'bug_{number}']['operation']}")


def functions(module: ModuleType) -> SimpleNamespace:
    """The forward and backward functions of an operation."""
    return SimpleNamespace(
        **{name: f for name, f in vars(module).items() if name.endswith(("_forward", "_backward"))}
    )


def results(case: Case, backend: NumpyBackend) -> dict[str, np.ndarray | None]:
    """Outputs and gradients by name."""
    rng = np.random.default_rng(0)
    inputs = case.make_inputs(rng)
    outputs, backward = OPERATIONS[case.op].run(backend, inputs, case.attrs)
    first = next(iter(outputs.values()))
    gradients = backward(np.asarray(rng.standard_normal(first.shape)))
    return {**outputs, **{f"gradient to {name}": values for name, values in gradients.items()}}


@each_bug
def test_check_passes_what_is_right(number: int) -> None:
    getattr(bugs, f"notices_{number}")(functions(operation(number, "minicnn.ops")))


@each_bug
def test_check_notices_the_bug(number: int) -> None:
    with pytest.raises(AssertionError):
        getattr(bugs, f"notices_{number}")(functions(operation(number, f"planted.bug_{number}")))


@each_bug
def test_mended(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, right = getattr(bugs, f"mended_{number}")()
    folder = tmp_path / f"mended_{number}"
    shutil.copytree(
        HERE / "planted" / f"bug_{number}", folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    path = folder / PLANTED[f"bug_{number}"]["file"]
    text = path.read_text()
    assert text.count(wrong) == 1, f"{wrong!r} stands {text.count(wrong)} times in {path.name}"
    path.write_text(text.replace(wrong, right))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        made = vars(functions(operation(number, folder.name)))
    finally:
        for name in [name for name in sys.modules if name.startswith(folder.name)]:
            del sys.modules[name]
    mended = type("Mended", (NumpyBackend,), {name: staticmethod(f) for name, f in made.items()})()
    cases = [case for case in CASES if case.op == PLANTED[f"bug_{number}"]["operation"]]
    assert cases
    for case in cases[:ENOUGH]:
        found, expected = results(case, mended), results(case, NumpyBackend())
        for name, values in expected.items():
            assert_close(found[name], values, 1e-12, f"{case}: {name}")
    getattr(bugs, f"notices_{number}")(SimpleNamespace(**made))
