"""The module that nvcc builds: it builds, loads without a GPU, and refuses what it cannot work on.

Needs a CUDA toolkit, and minutes for the first build; ``make test-cuda`` runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from minicnn import BackendUnavailable
from minicnn.backends import build, cuda_build
from minicnn.backends.cuda_backend import CudaBackend

CANNOT_BUILD = cuda_build.missing_for_build()
NO_GPU = cuda_build.missing_gpu()
pytestmark = [
    pytest.mark.skipif(CANNOT_BUILD is not None, reason=str(CANNOT_BUILD)),
    pytest.mark.xdist_group("nvcc"),
]
without_gpu = pytest.mark.skipif(NO_GPU is None, reason="this machine has a GPU")


@pytest.fixture(scope="session")
def module() -> ModuleType:
    """The module for a GPU, whatever MINICNN_CUDA_EMULATION says."""
    return build.load(cuda_build.CUDA)


def test_it_is_not_the_emulation(module: ModuleType) -> None:
    assert module.emulated is False
    assert module.tf32() is False


def test_it_offers_what_the_cpu_module_offers(module: ModuleType) -> None:
    def operations(of: ModuleType) -> set[str]:
        """What it offers, without the plans of sessions and the threads, which are the CPU's."""
        threads = {"use_torch_threads", "measure_waking"}
        return {name for name in dir(of) if not name.startswith(("_", "Session"))} - threads

    of_a_card = {"emulated", "tf32", "set_tf32", "cross_entropy_gradient", "clip_norm", "read_step_numbers"}
    assert operations(module) == operations(build.load()) | of_a_card


ARGUMENTS = {"relu_forward": 1, "relu_backward": 2, "softmax_backward": 2, "softmax_forward": 1}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arrays_on_the_cpu_are_refused(module: ModuleType, name: str) -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"\[\w+\] \w+: expected device cuda, got cpu"):
        getattr(module, name)(*[x] * ARGUMENTS[name])


def test_lists_of_arrays_on_the_cpu_are_refused(module: ModuleType) -> None:
    lists = [[torch.zeros(3)] for _ in range(3)]
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    with pytest.raises(ValueError, match=r"\[sgd_step\] params\[0\]: expected device cuda, got cpu"):
        module.sgd_step(*lists, **options)


def test_what_is_no_array_is_refused(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"\[relu\] x: expected a torch.Tensor, got list"):
        module.relu_forward([1.0])


def test_no_parameters_need_no_gpu(module: ModuleType) -> None:
    assert module.global_norm([]) == 0


@without_gpu
def test_without_a_gpu_the_backend_says_why(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CUDA_EMULATION", "0")
    assert build.find_module(cuda_build.CUDA)[0] is not None, "it was built as the fixture asked"
    assert module.emulated is False
    with pytest.raises(BackendUnavailable) as caught:
        CudaBackend()
    assert str(caught.value) == f"cuda: {NO_GPU}"
    assert "no NVIDIA driver" in str(NO_GPU) or "no usable GPU" in str(NO_GPU)


@without_gpu
@pytest.mark.usefixtures("module")
def test_without_a_gpu_training_stops_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "minicnn.train", "--backend", "cuda", "--dry-run"],
        env={**os.environ, "MINICNN_CUDA_EMULATION": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"error: cuda: {NO_GPU}\n"
