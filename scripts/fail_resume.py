"""Lets the nth write, sync, rename or allocation of a training fail, resumes it, and compares its end.

Each trial is a run of what `python -m minicnn.train` runs, in a process and a folder of its own.  One call
of a kind fails: a file cannot be opened or renamed, a write stops in its middle, a sync does not succeed,
or an allocation of Python's gets no memory.  Whatever becomes of that process, the folder must hold a
checkpoint that can be read, or none yet, and the run that is resumed must end as the undisturbed one did,
bit for bit, but for the times in it.  A difference ends the script with exit status 1.

    python scripts/fail_resume.py [--times 100] [--first 0] [--save]

--save writes benchmarks/results/fail_resume.json.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from minicnn import checkpoint  # noqa: E402 - after the path is set
from scripts import kill_resume  # noqa: E402 - likewise

CALLS = ("open", "write", "fsync", "replace")
"""The calls by which a file comes to be."""

MEMORY = "allocate"
MOST_CALLS = 130
"""A run of kill_resume's settings makes about as many calls of each kind."""

MOST_ALLOCATIONS = 6.5
"""The power of 10 up to which the number of the allocation that fails is drawn."""


class Failing:
    """Counts the calls of each kind that write files, and lets one of them fail."""

    def __init__(self, kind: str = "", number: int = -1) -> None:
        self.kind, self.number = kind, number
        self.counts: Counter[str] = Counter()

    def check(self, kind: str) -> None:
        """Raise OSError if it is this call that fails."""
        self.counts[kind] += 1
        if (kind, self.counts[kind] - 1) == (self.kind, self.number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wrapped(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **options: Any) -> Any:
            self.check(kind)
            return call(*arguments, **options)

        return checked

    @contextlib.contextmanager
    def installed(self) -> Iterator[Counter[str]]:
        """Within this context files are written so; it gives the counts."""
        kept = os.open, os.fsync, os.fdopen, Path.replace
        fdopen = os.fdopen
        os.open = self._wrapped_open(os.open)
        os.fsync = self.wrapped("fsync", os.fsync)
        os.fdopen = lambda *given, **options: _Half(fdopen(*given, **options), self)
        Path.replace = self.wrapped("replace", Path.replace)
        try:
            yield self.counts
        finally:
            os.open, os.fsync, os.fdopen, Path.replace = kept

    def _wrapped_open(self, call: Callable[..., int]) -> Callable[..., int]:
        """Only of files that are made anew: what is read is not the subject here."""

        def checked(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if flags & os.O_EXCL:
                self.check("open")
            return call(path, flags, *more, **options)

        return checked


class _Half:
    """A file of which a write that fails has written half."""

    def __init__(self, file: BinaryIO, failing: Failing) -> None:
        self._file, self._failing = file, failing

    def write(self, data: bytes) -> int:
        try:
            self._failing.check("write")
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __enter__(self) -> _Half:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def command(arguments: list[str], kind: str, number: int) -> None:
    """What `python -m minicnn.train` does, with a failure; it may end in any way."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if kind == MEMORY:
        import _testcapi

        _testcapi.set_nomemory(number, number + 1)
        kill_resume.command(arguments)
    with Failing(kind, number).installed():
        kill_resume.command(arguments)


def trial(folder: Path, kind: str, number: int) -> str:
    """One run with a failure, and the same resumed; how the first one ended."""
    arguments = [*kill_resume.SETTINGS, "--resume", "--out", str(folder)]
    process = kill_resume.FORKS.Process(target=command, args=(arguments, kind, number))
    process.start()
    process.join(kill_resume.PATIENCE)
    if process.exitcode is None:
        process.kill()
        return "hung"
    file = folder / "checkpoint.safetensors"
    if file.exists():
        checkpoint.load(file)  # raises if it is torn
    kill_resume.end(kill_resume.start(folder))
    return f"exit status {process.exitcode}"


def drawn(number: int) -> tuple[str, int]:
    """The kind of the failure of a trial, and the number of the call that fails."""
    generator = np.random.default_rng(number)
    kind = (*CALLS, MEMORY)[number % (len(CALLS) + 1)]
    if kind == MEMORY:
        return kind, int(10 ** generator.uniform(2, MOST_ALLOCATIONS))
    return kind, int(generator.integers(MOST_CALLS))


def run(trials: range, folder: Path) -> dict[str, Any]:
    """These trials in this folder: how the runs ended that had a failure, and what differed after all."""
    reference = folder / "undisturbed"
    kill_resume.end(kill_resume.start(reference))
    ended: Counter[str] = Counter()
    differing: dict[str, list[str]] = {}
    for number in trials:
        out = folder / str(number)
        kind, call = drawn(number)
        ended[f"{kind}: {trial(out, kind, call)}"] += 1
        if found := kill_resume.differences(out, reference):
            differing[str(number)] = found
            print(f"trial {number}: {'; '.join(found)}", flush=True)
    return {
        "settings": " ".join(kill_resume.SETTINGS), "trials": len(trials),
        "ended": dict(sorted(ended.items())), "same end, bit for bit": len(trials) - len(differing),
        "differences": differing,
    }  # fmt: skip


if __name__ == "__main__":
    kill_resume.tell("fail_resume", __doc__, "have a failure", "failure", run)
