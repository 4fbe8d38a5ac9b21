"""Starts the processes of a group with the environment that torchrun gives them.

They are forked from a process that has imported what they need, so that hundreds of groups can be started.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from scripts.kill_resume import FORKS, PATIENCE  # noqa: E402 - after the path is set


def start(size: int, log: Path, work: Callable[..., object], *arguments: Any) -> list[BaseProcess]:
    """A process for each rank, which calls ``work``; what rank r prints on stderr goes to ``log``/r.

    A file there is begun anew.  stdout goes nowhere.
    """
    log.mkdir(parents=True, exist_ok=True)
    port = free_port()
    started = []
    for rank in range(size):
        environment = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        process = FORKS.Process(target=_run, args=(environment, log / str(rank), work, arguments))
        process.start()
        started.append(process)
    return started


def train(size: int, log: Path, arguments: list[str]) -> list[BaseProcess]:
    """Begin ``python -m minicnn.train`` with these arguments, in so many processes."""
    return start(size, log, command, arguments)


def end(processes: list[BaseProcess]) -> list[int | None]:
    """Wait for all; their exit statuses, None for one that hangs and is killed."""
    for process in processes:
        process.join(PATIENCE)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def command(arguments: list[str]) -> None:
    """What `python -m minicnn.train` does, without plots, which take longer than all the rest."""
    from minicnn import train as entry_point
    from minicnn.app import report
    from minicnn.app.command_line import exit_with

    report.draw = lambda *_: None
    exit_with(lambda: entry_point.main(arguments))


def _run(environment: dict[str, str], log: Path, work: Callable[..., object], arguments: Any) -> None:
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
    work(*arguments)
