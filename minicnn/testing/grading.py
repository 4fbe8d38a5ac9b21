"""Points for assignments: which tasks there are, and which of them an answer solves.

An assignment is a folder with an ``assignment.toml``, the files that a student fills in, and tests whose
marks name the tasks:

    title = "conv2d backward"
    answers = ["conv2d.py"]
    imports = ["numpy"]                                    what Python answers may import besides; optional
    tasks.3_1 = { title = "patches", points = 2 }         @pytest.mark.task_3_1

A task's points are earned if at least one test has its mark and all that have it pass.  Tests run in a
process of their own, so that an answer may fail in any way: a crash or a call that never returns costs the
points of its own assignment only.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DESCRIPTION = "assignment.toml"
LIMIT = 120.0
"""Seconds that the tests of an assignment may take."""

ALWAYS_ALLOWED = ("__future__", "collections.abc", "typing")
"""Modules that an answer may always import."""

_SAID = 2000
_NAME = re.compile(r"\d+_\d+")


@dataclass(frozen=True)
class Task:
    """A part of an assignment; its mark is ``task_`` and its name."""

    name: str
    title: str
    points: int

    @property
    def mark(self) -> str:
        return f"task_{self.name}"


@dataclass(frozen=True)
class Assignment:
    """A folder of tasks."""

    folder: Path
    title: str
    answers: tuple[str, ...]
    imports: tuple[str, ...] | None
    tasks: tuple[Task, ...]

    @property
    def points(self) -> int:
        return sum(task.points for task in self.tasks)


@dataclass(frozen=True)
class Verdict:
    """What a task's tests said: "passed", or why there are no points."""

    assignment: str
    task: Task
    passed: bool
    why: str

    @property
    def earned(self) -> int:
        return self.task.points if self.passed else 0


def read_assignment(folder: Path) -> Assignment:
    """The assignment of a folder.  Raises ValueError if its description is missing or wrong."""
    path = folder / DESCRIPTION
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        tasks = tuple(Task(name, row["title"], row["points"]) for name, row in found["tasks"].items())
        imports = tuple(found["imports"]) if "imports" in found else None
        assignment = Assignment(folder, found["title"], tuple(found["answers"]), imports, tasks)
    except FileNotFoundError:
        raise ValueError(
            f"[grading] {path}: expected a description of an assignment, got no file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        expected = "a title, answers, and tasks with a title and points"
        raise ValueError(f"[grading] {path}: expected {expected}, got {error}") from None
    for task in tasks:
        if not _NAME.fullmatch(task.name) or type(task.points) is not int or task.points < 1:
            wanted = "a name such as 3_2, and at least one point"
            raise ValueError(f"[grading] {path}: expected {wanted}, got {task.name!r}, {task.points!r}")
    return assignment


def read_tree(tree: Path, only: Sequence[str] = ()) -> list[Assignment]:
    """The assignments in a folder, by name; or those alone whose folder ``only`` names.

    Raises: ValueError if there are none, or none of a name
    """
    folders = sorted(path.parent for path in tree.glob(f"*/{DESCRIPTION}"))
    names = [folder.name for folder in folders]
    if unknown := [name for name in only if name not in names] or ([] if names else [str(tree)]):
        raise ValueError(
            f"[grading] assignments: expected some of {', '.join(names) or '*/' + DESCRIPTION}, "
            f"got {', '.join(unknown)}"
        )
    return [read_assignment(folder) for folder in folders if not only or folder.name in only]


def grade(assignment: Assignment, limit: float = LIMIT) -> list[Verdict]:
    """Run the assignment's tests, for at most so many seconds; a verdict for each task.

    Answers that import what the assignment does not allow earn nothing.
    """
    if refused := _refused_imports(assignment):
        return [_verdict(assignment, task, [], refused) for task in assignment.tasks]
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record"
        stopped, printed = _run_tests(assignment.folder, record, limit)
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    rows = [json.loads(line) for line in lines]
    return [_verdict(assignment, task, rows, stopped or printed[-_SAID:]) for task in assignment.tasks]


def grade_with_tests_of(trusted: Assignment, answers: Path, limit: float = LIMIT) -> list[Verdict]:
    """Grade the answers in a student's folder, with everything else from the ``trusted`` assignment.

    So nothing that a student changed besides the answers counts.  An answer that is missing earns nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(trusted.folder.parent, tree)
        for name in trusted.answers:
            (tree / trusted.folder.name / name).unlink(missing_ok=True)
            if (answers / name).is_file():
                shutil.copyfile(answers / name, tree / trusted.folder.name / name)
        return grade(read_assignment(tree / trusted.folder.name), limit)


def require_task(folder: Path, name: str, limit: float = LIMIT) -> None:
    """Raise AssertionError with what the tests said unless this task is solved; for notebooks."""
    assignment = read_assignment(folder)
    names = [task.name for task in assignment.tasks]
    if name not in names:
        raise ValueError(f"[grading] task: expected one of {', '.join(names)}, got {name}")
    verdict = grade(assignment, limit)[names.index(name)]
    if not verdict.passed:
        raise AssertionError(f"task {name}: {verdict.why}")


def results(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The verdicts as JSON has them: score and max_score, in all and for each task."""
    return {
        "score": sum(verdict.earned for verdict in verdicts),
        "max_score": sum(verdict.task.points for verdict in verdicts),
        "tests": [
            {
                "name": f"{verdict.assignment}: task {verdict.task.name}, {verdict.task.title}",
                "score": verdict.earned,
                "max_score": verdict.task.points,
                "output": verdict.why,
            }
            for verdict in verdicts
        ],
    }


def _refused_imports(assignment: Assignment) -> str:
    """What is wrong with the imports of Python answers, or ""."""
    allowed = (*ALWAYS_ALLOWED, *(assignment.imports or ()))
    for path in (assignment.folder / name for name in assignment.answers if name.endswith(".py")):
        if assignment.imports is None or not path.is_file():
            continue
        try:
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # the tests say so
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]
        for name in names:
            if not any(name == one or name.startswith(f"{one}.") for one in allowed):
                return f"{path.name} imports {name}; allowed are {', '.join(allowed)}"
    return ""


def _run_tests(folder: Path, record: Path, limit: float) -> tuple[str, str]:
    """Why the tests were stopped, or "", and what they printed."""
    folder = folder.resolve()
    command = [
        sys.executable, "-m", "pytest", "-q", "-rs", "--tb=short", "-c", os.devnull,
        "-p", "no:cacheprovider", "-p", "minicnn.testing.grading_plugin",
        "--grades", str(record), "--rootdir", str(folder), str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"the tests took longer than {limit:g} seconds", ""
    if process.returncode < 0:
        return f"the tests crashed ({signal.Signals(-process.returncode).name})", printed
    return "", printed


def _verdict(assignment: Assignment, task: Task, rows: list[dict[str, str]], otherwise: str) -> Verdict:
    """The verdict on a task; ``otherwise`` says why where its tests did not run."""
    tests = [row["test"] for row in rows if row.get("mark") == task.mark]
    passed = {row["test"] for row in rows if row.get("outcome") == "passed"}
    failed = {row["test"]: row["why"] for row in rows if row.get("outcome") == "failed"}
    reasons = [failed.get(test, otherwise) for test in tests if test not in passed or test in failed]
    if not tests:
        reasons = [otherwise]
    return Verdict(assignment.folder.name, task, not reasons, reasons[0] if reasons else "passed")
