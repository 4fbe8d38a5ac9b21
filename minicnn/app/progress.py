"""What a run shows while it works: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from minicnn.data.progress import OnProgress
from minicnn.text import printable

SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """1.5 s, 12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class Progress:
    """Progress of one piece of work, such as an epoch, as a context manager."""

    def __init__(self, console: Console, title: str, total: int, done: int = 0) -> None:
        self._console, self._title = console, title
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar: Bar | None = None
        if console.is_terminal and not console.quiet:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=console,
                transient=True,
                redirect_stdout=not console.stderr,  # else what is printed would go to the bar's stream
                redirect_stderr=console.stderr,
            )
            self._task = self._bar.add_task(printable(title), total=total, completed=done, text="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, total: int, text: str = "") -> None:
        """Show that ``done`` of ``total`` are done, and the text beside it."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, text=text)
        elif time.monotonic() >= self._next_line:
            self._console.print(f"{self._title}  {done}/{total}  {text}".rstrip())
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES


@contextmanager
def shown(console: Console, title: str) -> Iterator[OnProgress]:
    """What the library's work calls with how far it is, so that the console shows it."""
    with Progress(console, title, total=0) as progress:
        yield lambda done, total: progress.update(done, total)
