"""What a command that must fail says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minicnn.app.command_line import exit_with


def line_of(capsys: pytest.CaptureFixture[str], command: Callable[[], None]) -> str:
    """The one line of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        exit_with(command)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("backend: ")]
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")
