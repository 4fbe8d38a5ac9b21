"""``python -m minicnn.verify``: a sound backend passes, a broken one fails and is named."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from minicnn.app.command_line import exit_with
from minicnn.app.commands import verify
from minicnn.backends import BackendUnavailable, cuda_build, torch_package
from minicnn.backends.numpy_backend import NumpyBackend
from minicnn.ops.relu import relu_backward, relu_forward

RELU = ["--backend", "numpy", "--op", "relu"]


def run(*arguments: str) -> int:
    """The exit status of the command in this process."""
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: verify.main(list(arguments)))
    return int(stop.value.code or 0)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets is set back."""
    for name in ("OMP_NUM_THREADS", "MINICNN_CUDA_EMULATION"):
        monkeypatch.setenv(name, "1" if name.startswith("OMP") or cuda_build.emulated() else "0")


# ---- what is sound passes ----------------------------------------------------------------------------


def test_passes_and_says_what_it_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--backend", "numpy", "--op", "relu,concat,sgd_step") == 0
    out = capsys.readouterr().out
    assert "float32" in out
    assert "float64" in out
    names = [
        line.split()[0] for line in out.splitlines() if line.startswith(("relu", "concat", "sgd_step"))
    ]
    assert names == ["relu", "concat", "sgd_step"]
    assert "verdict: all " in out
    assert "on numpy" in out


def test_as_users_run_it() -> None:
    line = [sys.executable, "-O", "-W", "error", "-m", "minicnn.verify", "--json", "-", *RELU]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "passed"
    assert "verdict: all " in done.stderr


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "verify.json"
    assert run("--backend", "numpy", "--op", "dense", "--json", str(file)) == 0
    assert "verdict" in capsys.readouterr().out
    document = json.loads(file.read_text())
    assert document.keys() == {
        "verdict", "passed", "failed", "full", "seconds", "versions", "backends", "rows", "failures",
    }  # fmt: skip
    assert document["versions"].keys() == {"minicnn", "torch", "numpy", "python"}
    assert document["backends"] == [{"name": "numpy", "label": "numpy", "checked": True, "reason": None}]
    assert [row["op"] for row in document["rows"]] == ["dense", "dense", "dense"]
    assert [row["dtype"] for row in document["rows"]] == ["float32", "float64", "bfloat16"]
    limits = ((0, 20), (0, 20), (2**-8, 10))  # half a unit of bfloat16, and the least number of checks
    for row, (half_a_unit, least) in zip(document["rows"], limits, strict=True):
        assert 0 < row["worst_relative_error"] < 1e-5 + half_a_unit
        assert 0 < row["worst_ulps"] < 100
        assert row["passed"] == sum(kind["passed"] for kind in row["kinds"].values()) > least
    assert document["rows"][0]["kinds"].keys() >= {"torch autograd", "adjoint", "same bits", "refusal"}
    assert "central differences" in document["rows"][1]["kinds"]
    assert sum(row["passed"] for row in document["rows"]) == document["passed"]
    assert (document["failed"], document["failures"]) == (0, [])


def test_full_form_draws_more(tmp_path: Path) -> None:
    passed = []
    for form in ([], ["--full"]):
        assert run(*RELU, *form, "--json", str(tmp_path / "out.json")) == 0
        passed.append(json.loads((tmp_path / "out.json").read_text())["passed"])
    assert passed[1] > 4 * passed[0]


# ---- what is broken fails ----------------------------------------------------------------------------


def one_value_wrong(x: np.ndarray) -> np.ndarray:
    y = relu_forward(x)
    y.reshape(-1)[-1:] += 1e-3
    return y


def nan_swallowed(x: np.ndarray) -> np.ndarray:
    return relu_forward(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf))


def slope_at_zero(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y < 0, 0, relu_backward(dy, np.abs(y) + 1)).astype(dy.dtype)


def gradient_doubled(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2 * relu_backward(dy, y)


def argument_changed(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    dx = relu_backward(dy, y)
    dy[...] = dx
    return dx


def warns(x: np.ndarray) -> np.ndarray:
    return relu_forward(x) + np.float32(0) * np.log(np.float32(0) - 1)


def raises(_: np.ndarray) -> np.ndarray:
    raise MemoryError("no memory")


def accepts_all(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


BROKEN: list[tuple[str, Callable[..., np.ndarray], str, str]] = [
    ("relu_forward", one_value_wrong, "torch autograd", "y["),
    ("relu_forward", nan_swallowed, "non finite forward", "whether nan comes out"),
    ("relu_backward", slope_at_zero, "rule", "dx[0]: expected 0, got 3"),
    ("relu_backward", gradient_doubled, "central differences", "slope along a random direction"),
    ("relu_backward", gradient_doubled, "adjoint", "<y, dy> = "),
    ("relu_backward", argument_changed, "arguments unchanged", "dy after backward"),
    ("relu_forward", warns, "torch autograd", "RuntimeWarning"),
    ("relu_forward", raises, "torch autograd", "MemoryError: no memory"),
    ("relu_forward", accepts_all, "refusal", "expected the error '[relu] x: expected dtype"),
]


@pytest.mark.parametrize(
    ("method", "broken", "kind", "message"), BROKEN, ids=lambda a: getattr(a, "__name__", a)
)
def test_broken_operation_fails_and_is_named(
    method: str,
    broken: Callable[..., np.ndarray],
    kind: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(NumpyBackend, method, staticmethod(broken))
    file = tmp_path / "verify.json"
    assert run("--backend", "numpy", "--op", "relu,add", "--json", str(file)) == 1
    document = json.loads(file.read_text())
    assert document["verdict"] == "failed"
    assert {failure["op"] for failure in document["failures"]} == {"relu"}
    assert [f for f in document["failures"] if f["kind"] == kind and message in f["message"]]
    assert {row["op"] for row in document["rows"] if row["failed"]} == {"relu"}
    out = capsys.readouterr().out
    assert "failed: numpy relu float" in out
    assert f"verdict: {document['failed']:,} of " in out


# ---- what cannot be checked --------------------------------------------------------------------------


def test_backend_that_cannot_be_had_is_named_and_an_error_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def get_backend(name: str) -> NumpyBackend:
        if name == "numpy":
            return NumpyBackend()
        raise BackendUnavailable(f"{name}: no compiler")

    monkeypatch.setattr(verify, "get_backend", get_backend)
    assert run("--op", "flatten") == 0
    out = capsys.readouterr().out
    for name in ("cpp", "cuda"):
        assert f"{name}: not checked: {name}: no compiler" in out
    assert "on numpy, " in out
    assert run("--backend", "cpp") == 2
    assert capsys.readouterr().err == "error: cpp: no compiler\n"


def test_emulation_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cuda_build, "missing_gpu", lambda: "no NVIDIA driver")
    monkeypatch.setattr(verify, "get_backend", lambda _: NumpyBackend())
    assert run("--backend", "cuda", "--op", "flatten") == 0
    assert "cuda: emulated on the CPU; not checked on a GPU: no NVIDIA driver" in capsys.readouterr().out


def test_missing_torch_is_one_clear_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec

    def without_torch(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torch" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    assert run(*RELU) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: verify compares with torch: torch is not installed; ")
    assert torch_package.INSTALL in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "opencl"], "argument --backend: expected some of numpy,cpp,cuda, got 'opencl'"),
        (["--backend", "numpy,"], "argument --backend: expected some of numpy,cpp,cuda, got ''"),
        (["--op", "relu,conv3d"], "argument --op: expected some of conv2d,"),
        (["--op", "relu,conv3d"], "got 'conv3d'"),
        (["--ful"], "unrecognized arguments: --ful"),
        ([*RELU, "--json", "/does/not/exist/out.json"], "cannot write /does/not/exist/out.json"),
    ],
)
def test_wrong_argument_is_one_clear_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
