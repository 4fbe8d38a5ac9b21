"""The option --threads, and a description of the machine in every result."""

from __future__ import annotations

from typing import Any

import pytest
from paired import machine
from rows import THREADS, use_threads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=THREADS, help="threads of minicnn and of its peers")


@pytest.fixture(scope="session", autouse=True)
def _threads(request: pytest.FixtureRequest) -> None:
    use_threads(request.config.getoption("--threads"))


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["minicnn"] = machine(config.getoption("--threads"))
