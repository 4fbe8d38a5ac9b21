"""Which backends the tests run on.

By default: every backend that is available on this machine.  ``MINICNN_TEST_BACKENDS=numpy,cpp`` names the
backends instead; if one of those is missing, its tests fail.

Everything computes with one thread: the arrays are small, and threads that wait for each other on a
busy machine make the suite ten times as slow.  Separate tests compare 1, 2 and 3 threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from minicnn import set_num_threads
from minicnn.backends import Backend, BackendUnavailable, available_backends, get_backend

LISTED = [name for name in os.environ.get("MINICNN_TEST_BACKENDS", "").split(",") if name]
BACKENDS = LISTED or [name for name, reason in available_backends().items() if reason is None]


threadpool_limits(1)
torch.set_num_threads(1)


@pytest.fixture(params=BACKENDS, scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend under test in turn."""
    try:
        return get_backend(request.param)
    except BackendUnavailable as reason:
        pytest.fail(f"MINICNN_TEST_BACKENDS lists {request.param}: {reason}")


@pytest.fixture(params=["float32", "float64"], scope="session")
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    """Each dtype of the contract in turn."""
    return np.dtype(request.param)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """minicnn.set_num_threads, undone after the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield set_num_threads
    set_num_threads(1)
