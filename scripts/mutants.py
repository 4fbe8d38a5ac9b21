"""Tests the tests: plants one bug at a time in a copy of the checkout, and runs those that must notice it.

The mutants are the rows of tests/mutants/*.toml, a file for each backend that the tests run on:

    name      of the mutant
    file      where the bug is planted
    find      the text that it replaces; it must occur exactly once, so that the table cannot rot
    replace   the bug
    bug       what is wrong then, in words
    tests     the test files that must notice it
    only      which of their tests, as pytest's -k has it (optional)
    env       further environment variables (optional)
    quick     whether CI's short form has it (optional)

All of these tests must first pass without a bug.  A mutant is killed by a test that fails, by a crash, or
by taking longer than --limit.  One that does not compile or import is an error, not a kill.

    python -m scripts.mutants [NAME ...] [--quick] [--limit SECONDS] [--save FILE]

NAMEs may have wildcards.  Exit status 1 with a survivor, 2 with an error.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path("tests/mutants")
RESULTS = Path("benchmarks/results/mutants.json")
WORK = Path("build/mutants")
"""The copy of the checkout and the object files, kept from one call to the next."""

COMPILED = {"cpp": {}, "cuda": {"MINICNN_CUDA_EMULATION": "1"}}
"""The backends that have a module to build, and what chooses it."""


class MutantError(RuntimeError):
    """A mutant cannot be tried: its text is not there, it does not build, its tests fail without it."""


@dataclass(frozen=True)
class Mutant:
    """A bug and the tests that must find it; see the top of this file."""

    name: str
    file: str
    find: str
    replace: str
    bug: str
    tests: str
    backend: str
    only: str = ""
    env: dict[str, str] = field(default_factory=dict)
    quick: bool = False

    @property
    def language(self) -> str:
        if self.file.endswith(".py"):
            return "Python"
        return "CUDA" if self.file.startswith("csrc/cuda") else "C++"

    def planted(self, text: str) -> str:
        """The file's text with the bug."""
        if (count := text.count(self.find)) != 1:
            raise MutantError(
                f"{self.name}: {self.file}: expected once, found {count} times: {self.find!r}"
            )
        return text.replace(self.find, self.replace)


def surroundings(mutant: Mutant) -> tuple[str, str, str]:
    """What mutants have in common whose tests can run together where no bug is planted."""
    return mutant.backend, mutant.tests, json.dumps(mutant.env)


@dataclass
class Row:
    """What became of a mutant: killed by a test, "a crash" or "the time limit", or not (by is "")."""

    name: str
    language: str
    file: str
    bug: str
    killed: bool
    by: str
    seconds: float
    commit: str


def read_table(root: Path) -> list[Mutant]:
    """All mutants of the checkout."""
    found = [
        Mutant(backend=path.stem, **row)
        for path in sorted((root / TABLE).glob("*.toml"))
        for row in tomllib.loads(path.read_text())["mutant"]
    ]
    names = [mutant.name for mutant in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MutantError(f"expected names that are used once, got twice: {', '.join(twice)}")
    return found


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Workshop:
    """The copy of a checkout in which mutants are tried."""

    def __init__(self, root: Path, limit: float) -> None:
        self.root, self.limit = root, limit
        self.work = root / WORK
        self.tree = self.work / "tree"
        self.sync()

    def sync(self) -> None:
        """Copy what git tracks and has changed; the rest keeps its time, so it is not compiled again."""
        tracked = {name for name in git(self.root, "ls-files").splitlines() if (self.root / name).is_file()}
        for name in tracked:
            source, copy = self.root / name, self.tree / name
            if not copy.exists() or copy.read_bytes() != source.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        for path in self.tree.rglob("*.*"):
            if "__pycache__" not in path.parts and str(path.relative_to(self.tree)) not in tracked:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def prove_baseline(self, mutants: list[Mutant], say: Console) -> None:
        """Raise MutantError unless the tests of all mutants pass without a bug."""
        for _, group in groupby(sorted(mutants, key=surroundings), surroundings):
            alike = list(group)
            only = " or ".join(f"({mutant.only})" for mutant in alike)
            together = replace(alike[0], only=only if all(mutant.only for mutant in alike) else "")
            say.print(f"without a bug: {together.backend}, {together.tests}", style="dim", highlight=False)
            objects = self.objects(together.backend)
            self.build(together, objects)
            if by := self.first_failure(together, objects):
                raise MutantError(f"fails without a bug: {by}")

    def outcome(self, mutant: Mutant, commit: str) -> Row:
        """Plant the mutant and run its tests."""
        start = time.monotonic()
        with self.planted(mutant), self.scratch(mutant.backend) as objects:
            self.build(mutant, objects)
            by = self.first_failure(mutant, objects)
        seconds = round(time.monotonic() - start, 1)
        return Row(mutant.name, mutant.language, mutant.file, mutant.bug, bool(by), by, seconds, commit)

    def objects(self, backend: str) -> Path:
        """The folder of a backend's object files, without a bug."""
        return self.work / backend

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        """The tree with the bug in it; afterwards the file is as it was, its time too."""
        path = self.tree / mutant.file
        before, times = path.read_text(), path.stat()
        path.write_text(mutant.planted(before))
        try:
            yield
        finally:
            path.write_text(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    @contextmanager
    def scratch(self, backend: str) -> Iterator[Path]:
        """A copy of a backend's object files, for one mutant."""
        copy = self.work / "scratch"
        shutil.rmtree(copy, ignore_errors=True)
        if backend in COMPILED:
            shutil.copytree(self.objects(backend), copy)
        yield copy
        shutil.rmtree(copy, ignore_errors=True)

    def environment(self, mutant: Mutant, objects: Path) -> dict[str, str]:
        ninja = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        # The module without a bug is kept where everything finds it, that of a bug is thrown away.  With
        # MINICNN_WERROR=1 a bug must leave no name unused.
        whole = objects == self.objects(mutant.backend)
        cache = {} if whole else {"MINICNN_CACHE": str(objects / "cache")}
        return {
            **os.environ, "PATH": ninja, "OMP_NUM_THREADS": "1", **cache,
            # Python takes bytecode of the same second and length of source for that of the bug.
            "PYTHONDONTWRITEBYTECODE": "1",
            "MINICNN_TEST_BACKENDS": mutant.backend, **COMPILED.get(mutant.backend, {}), **mutant.env,
        }  # fmt: skip

    def build(self, mutant: Mutant, objects: Path) -> None:
        """Bring the backend's module up to date."""
        if mutant.backend not in COMPILED:
            return
        objects.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "scripts.module_build", mutant.backend, str(objects)]
        env = self.environment(mutant, objects)
        done = subprocess.run(command, cwd=self.tree, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MutantError(f"{mutant.name} does not build:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def first_failure(self, mutant: Mutant, objects: Path) -> str:
        """The test that fails first, "a crash", "the time limit", or "" if all pass."""
        options = ["-x", "-q", "-rf", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts="]
        selected = [*mutant.tests.split(), *(["-k", mutant.only] if mutant.only else [])]
        command = [sys.executable, "-m", "pytest", *options, *selected]
        process = subprocess.Popen(
            command, cwd=self.tree, env=self.environment(mutant, objects), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "the time limit"
        if process.returncode < 0:
            return f"a crash ({signal.Signals(-process.returncode).name})"
        failed = re.search(r"^FAILED (.+?)(?: - |$)", printed, re.MULTILINE)
        if process.returncode == 0 or (process.returncode == 1 and failed):
            return failed[1] if failed else ""
        raise MutantError(f"{mutant.name}: pytest {shlex.join(selected)}:\n{printed[-3000:]}")


def merged(old: list[dict[str, object]], new: list[Row], mutants: list[Mutant]) -> list[dict[str, object]]:
    """Saved rows with the new ones in their places, in the table's order; what has left it is dropped."""
    rows = {str(row["name"]): row for row in old} | {row.name: asdict(row) for row in new}
    return [rows[mutant.name] for mutant in mutants if mutant.name in rows]


def kill_table(rows: list[Row]) -> Table:
    table = Table("mutant", "file", "the bug", "killed by", "s", title="Mutants")
    for row in rows:
        by = escape(row.by) or "[bold red]SURVIVED"
        table.add_row(row.name, row.file, row.bug, by, f"{row.seconds:.0f}")
    return table


def chosen(mutants: list[Mutant], names: list[str], quick: bool) -> list[Mutant]:
    """The mutants that match a name, or all; with ``quick`` only those of the short form."""
    found = [m for m in mutants if not names or any(fnmatch(m.name, name) for name in names)]
    found = [m for m in found if m.quick or not quick]
    if not found:
        raise MutantError(f"no mutant is called {' or '.join(names)}")
    return found


def run(root: Path, names: list[str], quick: bool, limit: float, save: Path | None, say: Console) -> int:
    """Try the mutants, print the kill table; the exit status."""
    everything = read_table(root)
    mutants = chosen(everything, names, quick)
    for mutant in everything:
        mutant.planted((root / mutant.file).read_text())
    (root / WORK).mkdir(parents=True, exist_ok=True)
    with (root / WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two calls at once, one waits
        commit = git(root, "describe", "--always", "--dirty", "--abbrev=12")
        workshop = Workshop(root, limit)
        workshop.prove_baseline(mutants, say)
        rows = []
        for mutant in mutants:
            rows.append(row := workshop.outcome(mutant, commit))
            say.print(
                f"{row.seconds:6.1f} s  {row.name}: {row.by or 'SURVIVED'}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    say.print(kill_table(rows))
    survivors = [row.name for row in rows if not row.killed]
    told = f"; survived: {', '.join(survivors)}" if survivors else ""
    say.print(f"{len(rows) - len(survivors)} of {len(rows)} killed{told}", highlight=False, soft_wrap=True)
    if save is not None:
        old = json.loads(save.read_text()) if save.exists() else []
        save.write_text(json.dumps(merged(old, rows, everything), indent=2) + "\n")
    return 1 if survivors else 0


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description="Plants bugs one at a time and runs the tests on each.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of mutants, wildcards allowed; default all"
    )
    parser.add_argument("--quick", action="store_true", help="only the few that CI runs")
    parser.add_argument(
        "--limit", type=float, default=300, metavar="SECONDS", help="for the tests of a mutant"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="JSON file that the rows are put into")
    args = parser.parse_args(arguments)
    try:
        return run(
            root,
            args.names,
            args.quick,
            args.limit,
            args.save,
            Console(width=None if sys.stdout.isatty() else 200),
        )
    except MutantError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
