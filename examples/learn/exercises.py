"""Exercises to the chapters and to the operations: writes files with gaps, and checks what was filled in.

python examples/learn/exercises.py list
python examples/learn/exercises.py write pixels            writes pixels.py here
python examples/learn/exercises.py check pixels.py

The tasks are the functions of tasks/*.py that have a check beside them: ``check_mirrored`` is given an
answer to ``mirrored`` and raises AssertionError if it is wrong.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

TASKS = Path(__file__).resolve().parent / "tasks"
GAP = "    raise NotImplementedError"


def names() -> list[str]:
    """The chapters and operations that have exercises."""
    return sorted(path.stem for path in TASKS.glob("*.py"))


def tasks(text: str) -> list[ast.FunctionDef]:
    """The tasks of a file, in order: its functions that have a check."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    checks = {function.name for function in functions if function.name.startswith("check_")}
    return [function for function in functions if f"check_{function.name}" in checks]


def stub(text: str, task: ast.FunctionDef) -> str:
    """The head of a task and its question, with a gap in place of the solution."""
    last = task.body[0].end_lineno
    assert last is not None
    return "\n".join([*text.splitlines()[task.lineno - 1 : last], GAP])


def file_with_gaps(name: str) -> str:
    """What a reader begins with."""
    text = (TASKS / f"{name}.py").read_text(encoding="utf-8")
    pieces = [
        f'"""Exercises: {name}."""',
        "import numpy as np",
        *(stub(text, task) for task in tasks(text)),
    ]
    return "\n\n\n".join(pieces) + "\n"


def load(path: Path) -> ModuleType:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(name: str, answers: Any) -> Iterator[tuple[str, str]]:
    """Each task and what is to be said of its answer: right, not yet, or what is wrong."""
    path = TASKS / f"{name}.py"
    checks = load(path)
    for task in tasks(path.read_text(encoding="utf-8")):
        answer = getattr(answers, task.name, None)
        try:
            if answer is None:
                raise NotImplementedError
            getattr(checks, f"check_{task.name}")(answer)
        except NotImplementedError:
            yield task.name, "not yet"
        except AssertionError as error:
            yield task.name, f"wrong: {' '.join(str(error).split()) or 'the check failed'}"
        except Exception as error:  # an answer may fail in any way
            yield task.name, f"failed: {type(error).__name__}: {error}"
        else:
            yield task.name, "right"


def main() -> int:
    """Exit status 1 if an answer is missing or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=("list", "write", "check"))
    parser.add_argument("what", nargs="?", help="a name for write, a file for check")
    args = parser.parse_args()
    if args.action == "list":
        print("\n".join(names()))
        return 0
    name = Path(args.what or "").stem
    if name not in names():
        parser.error(f"expected one of {', '.join(names())}, got {args.what}")
    if args.action == "write":
        path = Path(f"{name}.py")
        if path.exists():
            parser.error(f"{path} exists already; move it away to begin again")
        path.write_text(file_with_gaps(name), encoding="utf-8")
        print(f"{path} written; fill the gaps, then: python examples/learn/exercises.py check {path}")
        return 0
    path = Path(args.what)
    if not path.is_file():
        parser.error(f"no file {path}; make one with: write {name}")
    try:
        answers = load(path)
    except Exception as error:  # a reader's file may fail in any way
        parser.error(f"{path} cannot be run: {type(error).__name__}: {error}")
    results = list(verdicts(name, answers))
    print("\n".join(f"{task}: {verdict}" for task, verdict in results))
    return 0 if all(verdict == "right" for _, verdict in results) else 1


if __name__ == "__main__":
    sys.exit(main())
