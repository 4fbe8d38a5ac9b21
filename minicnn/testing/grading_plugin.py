"""The pytest plugin of an assignment: registers the marks of its tasks, and records what its tests say.

    pytest -p minicnn.testing.grading_plugin -m task_3_2 a3_conv2d

With ``--grades FILE`` a line of JSON is added to the file for each test that is found and for each outcome.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicnn.testing.grading import DESCRIPTION, read_assignment

if TYPE_CHECKING:
    import pytest

_RECORD = "--grades"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_RECORD, metavar="FILE", help="add a line for each test and outcome to this file")


def pytest_configure(config: pytest.Config) -> None:
    for path in sorted([*config.rootpath.glob(DESCRIPTION), *config.rootpath.glob(f"*/{DESCRIPTION}")]):
        for task in read_assignment(path.parent).tasks:
            config.addinivalue_line(
                "markers", f"{task.mark}: {task.title}, {task.points} points ({path.parent.name})"
            )
    if record := config.getoption(_RECORD):
        config.pluginmanager.register(_Recorder(Path(record)))


class _Recorder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers():
                if mark.name.startswith("task_"):
                    self._add(test=item.nodeid, mark=mark.name)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._add(test=report.nodeid, outcome="failed", why=_why(report))
        elif report.when == "call":
            self._add(test=report.nodeid, outcome=report.outcome)

    def _add(self, **row: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _why(report: pytest.TestReport) -> str:
    """The error that a test ended with, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(report.longrepr if crash is None else crash.message).splitlines()
    return lines[0] if lines else "failed"
