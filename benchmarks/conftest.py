"""Backends as benchmark rows, fixed threads, and the machine in every result."""

from __future__ import annotations

from typing import Any

import pytest
from paired import machine

import minicnn
from minicnn.backends import cuda_build

THREADS = 2
BACKENDS = [name for name, reason in minicnn.available_backends().items() if reason is None]


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    from rows import use_threads

    use_threads(THREADS)


@pytest.fixture(params=BACKENDS, ids=lambda name: cuda_build.label() if name == "cuda" else name)
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend that can be had."""
    return minicnn.get_backend(request.param)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:  # noqa: ARG001 - the hook's
    machine_info["minicnn"] = machine(THREADS)
