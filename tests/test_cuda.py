"""The cuda backend itself: why it is unavailable, which one is taken, and training on its emulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import Trainer, evaluate, models, optim, predict
from minicnn import train as train_command
from minicnn.app.commands import doctor
from minicnn.backends import (
    BackendUnavailable,
    available_backends,
    choice,
    cuda_build,
    get_backend,
    torch_package,
)
from minicnn.backends.base import Conv, Pool
from minicnn.backends.cuda_backend import CudaBackend, allow_tf32
from minicnn.layers import Conv2d, Sequential

EMULATED = cuda_build.emulated()
emulation_only = pytest.mark.skipif(not EMULATED, reason="needs MINICNN_CUDA_EMULATION=1")
NO_GPU = cuda_build.missing_gpu()


def fresh() -> CudaBackend:
    """A backend that is not the kept one."""
    return CudaBackend()


# ---- why not ---------------------------------------------------------------------------------------


@pytest.mark.skipif(NO_GPU is None, reason="this machine has a GPU")
def test_without_a_driver_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CUDA_EMULATION", "0")
    assert NO_GPU is not None
    assert "no NVIDIA driver" in NO_GPU or "torch finds no usable GPU" in NO_GPU
    with pytest.raises(BackendUnavailable, match="cuda: ") as caught:
        fresh()
    assert NO_GPU in str(caught.value)
    assert available_backends()["cuda"] == NO_GPU


@pytest.mark.skipif(NO_GPU is None, reason="auto takes the GPU that is here")
def test_auto_never_takes_the_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CUDA_EMULATION", "1")
    assert choice()[0] != "cuda"


def test_without_a_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_package, "cuda_version", lambda: "13.0")
    monkeypatch.setattr(cuda_build, "toolkit_version", lambda: None)
    reason = cuda_build.missing_for_build()
    assert reason is not None
    assert "no CUDA toolkit" in reason
    assert "CUDA_HOME" in reason


def test_toolkit_and_torch_of_different_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_build, "toolkit_version", lambda: "12.8")
    monkeypatch.setattr(torch_package, "cuda_version", lambda: "13.0")
    reason = cuda_build.missing_for_build()
    assert reason is not None
    for part in ("the CUDA toolkit is 12.8", "torch was built with CUDA 13.0", "install a toolkit 13.x"):
        assert part in reason
    monkeypatch.setattr(cuda_build, "toolkit_version", lambda: "13.1")
    assert cuda_build.missing_for_build() is None


def test_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_package, "cuda_version", lambda: None)
    assert "built without CUDA" in str(cuda_build.missing_for_build())


def test_toolkit_behind_a_wrapper_of_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "toolkit"
    (home / "bin").mkdir(parents=True)
    nvcc, wrapper = home / "bin" / "nvcc", tmp_path / "nvcc"
    nvcc.write_text(f'#!/bin/sh\necho "#$ TOP={home}/bin/.." >&2\necho "Cuda release 13.0, V13.0.88"\n')
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    for path in (nvcc, wrapper):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    cuda_build.cuda_home.cache_clear()
    cuda_build.toolkit_version.cache_clear()
    try:
        assert cuda_build.cuda_home() == home
        assert cuda_build.toolkit_version() == "13.0"
    finally:
        cuda_build.cuda_home.cache_clear()
        cuda_build.toolkit_version.cache_clear()


@pytest.mark.parametrize("value", ["", ".", "toolkit"])
def test_no_toolkit_of_the_working_directory_is_run(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.setenv(name, value)
    nvcc = tmp_path / value / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\ntouch run\n")
    nvcc.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    cuda_build.cuda_home.cache_clear()
    cuda_build.toolkit_version.cache_clear()
    try:
        home = cuda_build.cuda_home()
        assert home is None or home.is_absolute()
        cuda_build.toolkit_version()
    finally:
        cuda_build.cuda_home.cache_clear()
        cuda_build.toolkit_version.cache_clear()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["no program", None])
def test_an_nvcc_that_cannot_be_run_is_no_toolkit(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    if content is not None:
        nvcc.write_text(content)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    cuda_build.cuda_home.cache_clear()
    cuda_build.toolkit_version.cache_clear()
    try:
        assert cuda_build.toolkit_version() is None
        assert "no CUDA toolkit" in str(cuda_build.missing_for_build()) or not torch_package.cuda_version()
    finally:
        cuda_build.cuda_home.cache_clear()
        cuda_build.toolkit_version.cache_clear()


def test_architectures_need_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert cuda_build.architectures() == "8.0;9.0+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6")
    assert cuda_build.CUDA.about()["architectures"] == "8.6"


def test_forcing_a_build_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    """setup.py stops with the reason, as FORCE_CUDA=1 was meant."""
    pytest.importorskip("torch", reason="setup.py builds nothing without torch")
    done = subprocess.run(
        [sys.executable, "setup.py", "--name"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, "FORCE_CUDA": "1", "CUDA_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "FORCE_CUDA=1, but" in done.stderr


# ---- the emulation ---------------------------------------------------------------------------------


@emulation_only
def test_emulation_is_named_wherever_results_are_printed() -> None:
    assert get_backend("cuda").label == "cuda (emulated on the CPU)"
    assert cuda_build.label() == get_backend("cuda").label
    assert "backend cuda (emulated on the CPU)" in [finding.part for finding in doctor.findings()]


@emulation_only
def test_emulation_is_named_in_what_a_run_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--limit-train", "8", "--limit-test", "8", "--epochs", "1", "--batch-size", "4",
             "--validation", "0"]  # fmt: skip
    command = ["--backend", "cuda", "--model", "lenet5", "--out", str(tmp_path / "run"), *flags]
    label, file = "cuda (emulated on the CPU)", tmp_path / "run" / "checkpoint.safetensors"
    train_command.main(command)
    printed = capsys.readouterr().out
    assert f"backend: {label}, as asked" in printed
    assert f"8 test images, computed by {label}" in " ".join(printed.split())
    for name in ("config.json", "report.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["computed_by"] == label
    evaluate.main(["--backend", "cuda", "--checkpoint", str(file)])
    assert f"backend: {label}, as asked" in capsys.readouterr().out
    Image.fromarray(np.zeros((28, 28), "uint8")).save(tmp_path / "black.png")
    predict.main(["--backend", "cuda", "--checkpoint", str(file), str(tmp_path / "black.png")])
    assert f"backend: {label}, as asked" in capsys.readouterr().err


@emulation_only
def test_the_same_bits_whatever_the_order_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for order in ("forward", "reversed", "11", "12"):
        monkeypatch.setenv("MINICNN_CUDA_ORDER", order)
        states.append(train("cuda", steps=1)[1])
    for state in states[1:]:
        for name, a in state.items():
            assert a.tobytes() == states[0][name].tobytes(), name


@emulation_only
def test_steps_of_lenet5_keep_step_with_numpy() -> None:
    losses, state = train("cuda", steps=4)
    expected_losses, expected = train("numpy", steps=4)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    for name, a in expected.items():
        np.testing.assert_allclose(state[name], a, rtol=1e-7, atol=1e-9, err_msg=name)


def train(backend: str, steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and final parameters of some steps in float64, where no pool winner is in doubt."""
    model = models.create(
        "lenet5", in_channels=1, num_classes=10, image_size=28, backend=backend, seed=3, dtype="float64"
    )
    trainer = Trainer(model, optim.SGD(lr=0.05, momentum=0.9))
    rng = np.random.default_rng(5)
    losses = []
    for _ in range(steps):
        x, y = rng.standard_normal((4, 1, 28, 28)), rng.integers(0, 10, 4)
        losses.append(trainer.step(x, y))
    return losses, model.state_dict()


@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "stride", "groups", "pool", "ceil_mode"),
    [
        pytest.param((9, 8, 16, 16), 12, (3, 3), 1, 1, (2, 2), False, id="many windows in parts"),
        pytest.param((2, 6, 14, 14), 16, (5, 5), 1, 1, (2, 2), False, id="narrow channels"),
        pytest.param((2, 8, 11, 11), 6, (3, 2), 2, 2, (1, 3), True, id="groups, a window of three cells"),
        pytest.param((2, 16, 8, 8), 9, (3, 3), 1, 1, (3, 3), True, id="a large window"),
        pytest.param((3, 1, 13, 11), 20, (3, 3), 1, 1, (2, 2), True, id="a first layer"),
        pytest.param((2, 3, 14, 14), 7, (3, 3), 2, 1, (1, 2), False, id="a first layer, another window"),
        pytest.param((2, 3, 112, 112), 5, (3, 3), 1, 1, (2, 2), False, id="a first layer in many parts"),
    ],
)
@emulation_only
def test_convolutions_before_a_max_pool_on_integers(
    shape: tuple[int, ...], filters: int, kernel: tuple[int, int], stride: int, groups: int,
    pool: tuple[int, int], ceil_mode: bool,
) -> None:  # fmt: skip
    """Each way to compute them gives NumPy's numbers, to the bit where they are integers."""
    rng = np.random.default_rng(8)
    x, weight, bias = (
        rng.integers(-3, 4, size).astype("float32")
        for size in (shape, (filters, shape[1] // groups, *kernel), (filters,))
    )
    conv = Conv((stride, stride), (1, 1), (1, 1), groups)
    window = Pool(pool, pool, (0, 0), (1, 1), ceil_mode)
    results = []
    for backend in (get_backend("cuda"), get_backend("numpy")):
        arrays = [backend.asarray(a) for a in (x, weight)]
        y, saved = backend.conv2d_relu_max_pool2d_forward(
            *arrays, backend.asarray(bias), conv=conv, pool=window
        )
        dy = np.arange(backend.to_numpy(y).size, dtype="float32").reshape(y.shape) % 7 - 3
        gradients = backend.conv2d_relu_max_pool2d_backward(
            backend.asarray(dy), *arrays, saved, conv=conv, pool=window
        )
        results.append([backend.to_numpy(a) for a in (y, *gradients)])
    for name, got, expected in zip(("y", "dx", "dw", "db"), *results, strict=True):
        np.testing.assert_array_equal(got, expected, err_msg=name)


@emulation_only
def test_tf32_rounds_the_factors_and_nothing_else() -> None:
    backend = get_backend("cuda")
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 32, 6, 6)).astype("float32")
    weight = rng.standard_normal((24, 32, 3, 3)).astype("float32")
    conv = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}

    def forward(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return backend.to_numpy(
            backend.conv2d_forward(backend.asarray(a), backend.asarray(b), None, **conv)
        )

    exact = forward(x, weight)
    of_rounded = forward(rounded_to_tf32(x), rounded_to_tf32(weight))
    allow_tf32(backend, True)
    try:
        rough = forward(x, weight)
    finally:
        allow_tf32(backend, False)
    scale = np.abs(exact).max()
    assert np.abs(rough - exact).max() > 1e-5 * scale
    np.testing.assert_allclose(rough, of_rounded, rtol=0, atol=1e-5 * scale)
    np.testing.assert_array_equal(forward(x, weight), exact)


def rounded_to_tf32(a: np.ndarray) -> np.ndarray:
    """To 10 bits of mantissa, to nearest, ties away from zero."""
    bits = a.view(np.uint32) + np.uint32(0x1000)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


@emulation_only
def test_a_model_of_tf32_multiplies_so_and_leaves_others_alone() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 16, 6, 6)).astype("float32")
    exact, rough = (
        Sequential(Conv2d(16, 32, 3), backend="cuda", precision=precision)
        for precision in ("float32", "tf32")
    )
    expected, got = exact.predict(x), rough.predict(x)
    assert 1e-5 < np.abs(got - expected).max() / np.abs(expected).max() < 1e-2
    assert rough.backend._module.tf32() is False  # type: ignore[attr-defined]
    np.testing.assert_array_equal(exact.predict(x), expected)


@emulation_only
@pytest.mark.parametrize(
    ("shape", "padding", "stride", "axis"),
    [
        ((1, 1, 4, 1), (0, 0, 2**31 - 1, 0), (2**21, 1), "H"),
        ((1, 1, 1, 4), (0, 2**30, 0, 0), (1, 2**21), "W"),
    ],
    ids=["below", "left"],
)
def test_places_that_kernels_cannot_count_are_refused(
    shape: tuple[int, ...], padding: tuple[int, ...], stride: tuple[int, int], axis: str
) -> None:
    backend = get_backend("cuda")
    x, weight = (backend.asarray(np.zeros(s, np.float32)) for s in (shape, (1, 1, 1, 1)))
    message = rf"^\[cuda\] {axis} with its padding: expected fewer than 2\*\*30, got "
    with pytest.raises(ValueError, match=message):
        backend.conv2d_forward(x, weight, None, stride=stride, padding=padding, dilation=(1, 1), groups=1)
