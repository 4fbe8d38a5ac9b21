"""Fixed threads, and the machine in every result."""

from __future__ import annotations

from typing import Any

import pytest
from paired import machine
from rows import THREADS, use_threads


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    use_threads(THREADS)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:  # noqa: ARG001 - the hook's
    machine_info["minicnn"] = machine(THREADS)
