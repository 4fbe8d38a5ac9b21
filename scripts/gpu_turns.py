"""Processes that prepare at the same time and measure one after the other.

Each prepares while it holds a lock that others may hold too, and measures while it holds it alone.  So
nobody measures before all have prepared; and as the system frees the lock of a process that ends, however
it ends, nobody waits for one that was killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self


class Turns:
    """One process's part: used as a context it prepares, and in ``alone`` it measures.

    A process that has not prepared after ``seconds`` is ended by SIGALRM.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds

    def __enter__(self) -> Self:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    @contextmanager
    def alone(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, 0)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)


def run_all(commands: dict[str, list[str]], seconds: float) -> dict[str, str]:
    """Run the commands at the same time; what became of each that failed, by its name.

    ``seconds`` is how long each may prepare, for the message.
    """
    with ExitStack() as stack:
        logs = {name: stack.enter_context(TemporaryFile("w+")) for name in commands}
        running = {
            name: subprocess.Popen(command, stdout=logs[name], stderr=subprocess.STDOUT)
            for name, command in commands.items()
        }
        failed = {}
        for name, process in running.items():
            status = process.wait()
            logs[name].seek(0)
            printed = logs[name].read().strip()
            if status == -signal.SIGALRM:
                failed[name] = f"not ready after {seconds:.0f} s"
            elif status:
                print(f"{name}:\n{printed[-3000:]}", file=sys.stderr)
                failed[name] = (printed.splitlines() or [f"exit status {status}"])[-1]
    return failed
