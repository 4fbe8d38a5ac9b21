"""Every step in examples/fused, from the naive to the fused kernel, gives exactly PyTorch's results."""

from __future__ import annotations

import ctypes
from pathlib import Path

import fused_steps as steps
import numpy as np
import pytest

from minicnn.backends import compiler

pytestmark = pytest.mark.skipif(compiler.command() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    return steps.build([*steps.FORWARD, *steps.BACKWARD], tmp_path_factory.mktemp("steps"))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", [(2, 32, 6, 64), (5, 64, 4, 32)], ids=str)
def test_steps_agree_with_torch(
    libraries: dict[str, ctypes.CDLL], sizes: tuple[int, int, int, int], threads: int
) -> None:
    pytest.importorskip("torch", reason="the steps are checked against torch")
    steps.check(libraries, steps.problem(*sizes, whole_numbers=True), threads)


def test_the_check_finds_a_wrong_step(libraries: dict[str, ctypes.CDLL]) -> None:
    pytest.importorskip("torch", reason="the steps are checked against torch")
    swapped = {**libraries, "step6_fused_pool": libraries["step1_naive"]}  # which reads (N,C,H,W)
    with pytest.raises(AssertionError, match="step6_fused_pool"):
        steps.check(swapped, steps.problem(2, 32, 4, 32, whole_numbers=True), 1)


def test_a_problem_counts_its_multiply_adds() -> None:
    p = steps.problem(2, 32, 4, 64)
    assert p.multiply_adds == 2 * 4 * 4 * 64 * 32 * 9
    assert p.x.dtype == np.float32


def test_every_file_is_a_step() -> None:
    files = {path.stem for path in Path(steps.FOLDER).glob("*.cpp")}
    assert files == {*steps.FORWARD, *steps.BACKWARD}
