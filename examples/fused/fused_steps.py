"""Builds each step of the fused kernel, from naive to final, and checks it against PyTorch.

    python examples/fused/fused_steps.py        builds every step and checks it

Each step is a small C++ file.  It is built with g++, or the compiler that CXX names, and called through
ctypes, so that nothing lies between Python and the code that docs/fused.md explains.  benchmarks/ladder.py
times the steps.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
FORWARD = {
    "step1_naive": "the definition, written down",
    "step2_channels_last": "channels last, vectors over filters",
    "step3_register_tile": "sums stay in registers",
    "step4_threads": "threads share the images",
    "step5_fused_relu": "ReLU in registers",
    "step6_fused_pool": "max-pool in registers",
}
BACKWARD = {"backward_dense": "over the full map", "backward_winners": "over the winners alone"}
FIRST_THREADED = "step4_threads"
RELU_OFF = 4


class Problem(NamedTuple):
    """x (N,C,H,W), weight (F,C,3,3), bias (F,); H and W even, C and F multiples of 32."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    @property
    def multiply_adds(self) -> int:
        n, _, h, w = self.x.shape
        return n * h * w * self.weight.size


def problem(n: int, c: int, size: int, f: int, *, whole_numbers: bool = False) -> Problem:
    """Random values; with ``whole_numbers`` small integers, whose sums are exact in any order."""
    rng = np.random.default_rng(0)
    shapes = (n, c, size, size), (f, c, 3, 3), (f,)
    if whole_numbers:
        return Problem(*(rng.integers(-2, 3, shape).astype(np.float32) for shape in shapes))
    return Problem(*(rng.standard_normal(shape, np.float32) for shape in shapes))


def build(names: list[str], folder: Path) -> dict[str, ctypes.CDLL]:
    """Compile the steps, all at the same time.  Raises CalledProcessError if one fails."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    native = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
    commands = {
        name: [
            *compiler, "-std=c++17", "-O3", native, "-Wall", "-Wextra", "-Werror",
            "-shared", "-fPIC", "-pthread", str(FOLDER / f"{name}.cpp"), "-o", str(folder / f"{name}.so"),
        ]
        for name in names
    }  # fmt: skip
    running = {name: subprocess.Popen(command) for name, command in commands.items()}
    for name, process in running.items():
        if process.wait() != 0:
            raise subprocess.CalledProcessError(process.returncode, commands[name])
    return {name: ctypes.CDLL(str(folder / f"{name}.so")) for name in names}


def forward(name: str, library: ctypes.CDLL, p: Problem, threads: int) -> Callable[[], list[np.ndarray]]:
    """A call that returns y and the winners, (N,F,H/2,W/2); the inputs' memory order is prepared before."""
    n, c, h, w = p.x.shape
    f = len(p.weight)
    channels_last = name != "step1_naive"
    x = p.x.transpose(0, 2, 3, 1) if channels_last else p.x
    weight = p.weight.transpose(2, 3, 1, 0) if channels_last else p.weight
    shape = (n, h // 2, w // 2, f) if channels_last else (n, f, h // 2, w // 2)
    inputs = [np.ascontiguousarray(a) for a in (x, weight, p.bias)]
    outputs = [np.empty(shape, np.float32), np.empty(shape, np.uint8)]
    sizes = (ctypes.c_int * 5)(n, c, h, w, f)

    def run() -> list[np.ndarray]:
        library.forward(*map(_pointer, [*inputs, *outputs]), sizes, threads)
        return [a.transpose(0, 3, 1, 2) for a in outputs] if channels_last else outputs

    return run


def backward(
    library: ctypes.CDLL, p: Problem, dy: np.ndarray, winner: np.ndarray, threads: int
) -> Callable[[], np.ndarray]:
    """A call that gives dw (F,C,3,3) from dy and the winners, (N,F,H/2,W/2)."""
    n, c, h, w = p.x.shape
    f = len(p.weight)
    inputs = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (p.x, dy, winner)]
    dw = np.empty((f, 3, 3, c), np.float32)
    sizes = (ctypes.c_int * 5)(n, c, h, w, f)

    def run() -> np.ndarray:
        library.backward(*map(_pointer, [*inputs, dw]), sizes, threads)
        return dw.transpose(0, 3, 1, 2)

    return run


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def check(libraries: dict[str, ctypes.CDLL], p: Problem, threads: int) -> None:
    """Raise AssertionError unless every step gives PyTorch's values, winners and gradients.

    The problem's values must be whole numbers, so that all sums are exact and equal values stay equal.
    """
    import torch
    import torch.nn.functional as F

    x, weight, bias = map(torch.from_numpy, p)
    weight.requires_grad_()
    y, places = F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=1)), 2, return_indices=True)
    width = p.x.shape[3]
    winner = places // width % 2 * 2 + places % width % 2
    expected = y.detach().numpy(), torch.where(y > 0, winner, RELU_OFF).numpy().astype(np.uint8)
    for name in FORWARD:
        for got, want in zip(forward(name, libraries[name], p, threads)(), expected, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)
    dy = np.random.default_rng(1).integers(-2, 3, y.shape).astype(np.float32)
    (dw,) = torch.autograd.grad(y, weight, torch.from_numpy(dy))
    for name in BACKWARD:
        got = backward(libraries[name], p, dy, expected[1], threads)()
        np.testing.assert_array_equal(got, dw.numpy(), err_msg=name)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        libraries = build([*FORWARD, *BACKWARD], Path(folder))
        for threads in (1, 2, 3):
            check(libraries, problem(3, 32, 14, 64, whole_numbers=True), threads)
    print(f"{len(libraries)} steps agree with PyTorch, value for value")


if __name__ == "__main__":
    main()
