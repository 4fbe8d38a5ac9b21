"""A process that was forked after its parent computed with two threads computes the same bits."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import LISTED

from minicnn.backends import available_backends

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

SECONDS = 120
"""Far more than a program needs; one that hangs takes forever."""

START = """
import os, signal
import numpy as np
import minicnn, torch
from minicnn import models, threads

def train_and_predict():
    model = models.create("simple_cnn", in_channels=1, num_classes=4, image_size=16, backend="cpp")
    x = np.random.default_rng(0).standard_normal((32, 1, 16, 16)).astype(np.float32)
    minicnn.Trainer(model, minicnn.optim.SGD(lr=0.1)).step(x, np.arange(32) % 4)
    return model.predict(x).tobytes()

def torch_result():
    x = torch.arange(300.0 * 300).reshape(300, 300) / 1e4
    return (x @ x).exp().sum().item()

def in_child(function):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.write(write, repr(function()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        told = file.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return told

minicnn.set_num_threads(2)
expected = train_and_predict(), torch_result()
def results():
    return train_and_predict(), torch_result()
"""

PROGRAMS = {
    "children and grandchildren": """
assert in_child(results) == repr(expected)
assert in_child(torch.get_num_threads) == "2"
assert in_child(lambda: in_child(results)) == repr(repr(expected))
def with_three_threads():
    minicnn.set_num_threads(3)
    return results()
assert in_child(with_three_threads) == repr(expected)
assert results() == expected
""",
    "another thread, and a pool of processes": """
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
with ThreadPoolExecutor(1) as pool:
    pool.submit(results).result()
    assert pool.submit(in_child, results).result() == repr(expected)
with get_context("fork").Pool(2) as pool:
    assert pool.apply(results) == expected
""",
    "an OpenMP that cannot end its threads": """
threads._can_end_threads = lambda openmp: False
assert in_child(train_and_predict) == repr(expected[0])
assert in_child(torch.get_num_threads) == "1"
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_forked_processes_compute(name: str) -> None:
    program = START + PROGRAMS[name]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
