"""Makes what students and teachers get of `course/` and `notebooks/`.

    python scripts/course.py student DIR       the assignments without solutions, tests, points, workflow
    python scripts/course.py solutions DIR     the same with solutions
    python scripts/course.py nbgrader DIR      an nbgrader source notebook for each assignment
    python scripts/course.py notebooks DIR     the lessons of notebooks/ as .ipynb
    python scripts/course.py slides FILE       all slides, one HTML file

A solution stands in the sources between two comments, BEGIN SOLUTION and END SOLUTION.  DIR must be empty
or new, so that nothing of a student's is overwritten.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from minicnn.testing.grading import Assignment, Task, read_tree  # noqa: E402
from scripts import mutants  # noqa: E402

COURSE, NOTEBOOKS = ROOT / "course", ROOT / "notebooks"
BEGIN, END = "BEGIN SOLUTION", "END SOLUTION"
GAPS = {".py": "raise NotImplementedError", ".cpp": "not_implemented();", ".cu": "not_implemented();"}
MINUTES = 5
"""How long GitHub may test a task."""

PYTEST_INI = "[pytest]\naddopts = -p minicnn.testing.grading_plugin --strict-markers\n"


class CourseError(RuntimeError):
    """Nothing can be made; the message says why."""


# ---- solutions -------------------------------------------------------------------------------------


def stripped(text: str, name: str) -> str:
    """A file's text with a gap in place of each solution.  Raises CourseError where a mark is missing."""
    gap, lines, inside = GAPS[Path(name).suffix], [], False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if BEGIN in line or END in line:
            if inside == (BEGIN in line):
                raise CourseError(
                    f"{name}, line {number}: expected {END if inside else BEGIN}, got {line.strip()}"
                )
            inside = not inside
            if inside:
                lines.append(f"{line[: len(line) - len(line.lstrip())]}{gap}\n")
        elif not inside:
            lines.append(line)
    if inside:
        raise CourseError(f"{name}: the last solution has no {END}")
    return "".join(lines)


def without_marks(text: str) -> str:
    """A file's text with its solutions, but not the comments around them."""
    return "".join(line for line in text.splitlines(keepends=True) if BEGIN not in line and END not in line)


def answer(assignment: Assignment, name: str, solved: bool) -> str:
    """The text of an answer file, with the solution or with gaps."""
    text = (assignment.folder / name).read_text(encoding="utf-8")
    if BEGIN not in text:
        raise CourseError(f"{assignment.folder.name}/{name}: expected a solution, got no {BEGIN}")
    return without_marks(text) if solved else stripped(text, name)


# ---- planted bugs ----------------------------------------------------------------------------------


def plant(planted: Mapping[str, Mapping[str, str]], folder: Path) -> None:
    """Write a package for each bug: the operation's module with the mutant in it, or in what it imports."""
    table = {mutant.name: mutant for mutant in mutants.read_table(ROOT)}
    for bug, row in planted.items():
        if row["mutant"] not in table:
            raise CourseError(f"{bug}: tests/mutants has no {row['mutant']}")
        mutant = table[row["mutant"]]
        file, package = ROOT / mutant.file, folder / bug
        package.mkdir(parents=True)
        names = {file.name, f"{row['operation']}.py"}
        for name in names:
            text = (file.parent / name).read_text(encoding="utf-8")
            if name == file.name:
                text = mutant.planted(text)
            for other in names:
                text = text.replace(
                    f"from minicnn.ops.{Path(other).stem} import", f"from .{Path(other).stem} import"
                )
            (package / name).write_text(text, encoding="utf-8")
    about = {
        bug: {"file": Path(table[row["mutant"]].file).name, "operation": row["operation"]}
        for bug, row in planted.items()
    }
    (folder / "bugs.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def copy_assignment(assignment: Assignment, target: Path, *, solved: bool) -> None:
    """An assignment's folder as students get it, or with the solution."""
    target.mkdir(parents=True)
    for path in sorted(assignment.folder.iterdir()):
        if path.name == "planted.toml":
            plant(tomllib.loads(path.read_text(encoding="utf-8")), target / "planted")
        elif path.name in assignment.answers:
            (target / path.name).write_text(answer(assignment, path.name, solved), encoding="utf-8")
        elif path.is_file():
            shutil.copyfile(path, target / path.name)


# ---- the tree of assignments -----------------------------------------------------------------------


def points(assignments: Iterable[Assignment]) -> dict[str, Any]:
    """Titles and points of all tasks, as points.json has them."""
    found = {
        a.folder.name: {
            "title": a.title,
            "points": a.points,
            "tasks": {task.name: {"title": task.title, "points": task.points} for task in a.tasks},
        }
        for a in assignments
    }
    return {"points": sum(row["points"] for row in found.values()), "assignments": found}


def command(assignment: Assignment, task: Task) -> str:
    return f"python -m pytest {assignment.folder.name} -m {task.mark}"


def classroom_json(assignments: Iterable[Assignment], install: str) -> dict[str, Any]:
    """The tests with their points, as GitHub Classroom's autograding.json has them."""
    return {
        "tests": [
            {
                "name": f"task {task.name}: {task.title}", "setup": f"pip install {install}",
                "run": command(assignment, task), "input": "", "output": "", "comparison": "included",
                "timeout": MINUTES, "points": task.points,
            }
            for assignment in assignments
            for task in assignment.tasks
        ]
    }  # fmt: skip


def classroom_workflow(assignments: Iterable[Assignment], install: str) -> str:
    """The workflow that GitHub Classroom runs after each push: a step for each task, and the report."""
    steps, environment, runners = [], [], []
    for assignment in assignments:
        for task in assignment.tasks:
            steps.append(
                f"      - name: {json.dumps(f'task {task.name}: {task.title}')}\n"
                f"        id: {task.mark}\n"
                "        uses: classroom-resources/autograding-command-grader@v1\n"
                "        with:\n"
                f"          test-name: {json.dumps(f'task {task.name}: {task.title}')}\n"
                f"          command: {command(assignment, task)}\n"
                f"          timeout: {MINUTES}\n"
                f"          max-score: {task.points}\n"
            )
            environment.append(
                f'          {task.mark.upper()}_RESULTS: "${{{{steps.{task.mark}.outputs.result}}}}"\n'
            )
            runners.append(task.mark)
    return (
        "name: Autograding Tests\n"
        "'on': [push, repository_dispatch]\n"
        "permissions:\n  checks: write\n  actions: read\n  contents: read\n"
        "jobs:\n  run-autograding-tests:\n    runs-on: ubuntu-latest\n"
        "    if: github.actor != 'github-classroom[bot]'\n    steps:\n"
        "      - uses: actions/checkout@v4\n"
        "      - uses: actions/setup-python@v5\n        with: { python-version: '3.12' }\n"
        f"      - run: pip install {install}\n"
        f"{''.join(steps)}"
        "      - name: report\n"
        "        uses: classroom-resources/autograding-grading-reporter@v1\n"
        f"        env:\n{''.join(environment)}"
        f"        with:\n          runners: {','.join(runners)}\n"
    )


def make_tree(assignments: list[Assignment], target: Path, *, solved: bool, install: str) -> None:
    """All that a student needs, in one folder that can be a repository."""
    for assignment in assignments:
        copy_assignment(assignment, target / assignment.folder.name, solved=solved)
    (target / "README.md").write_text(_readme(assignments, install), encoding="utf-8")
    (target / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    (target / "points.json").write_text(json.dumps(points(assignments), indent=2) + "\n", encoding="utf-8")
    classroom = target / ".github" / "classroom" / "autograding.json"
    workflow = target / ".github" / "workflows" / "classroom.yml"
    for path in (classroom, workflow):
        path.parent.mkdir(parents=True)
    classroom.write_text(
        json.dumps(classroom_json(assignments, install), indent=2) + "\n", encoding="utf-8"
    )
    workflow.write_text(classroom_workflow(assignments, install), encoding="utf-8")


def _readme(assignments: list[Assignment], install: str) -> str:
    """The README of course/ with the command to install and a table of the assignments."""
    text = (COURSE / "README.md").read_text(encoding="utf-8")
    rows = "".join(
        f"| [{a.folder.name}]({a.folder.name}/README.md) | {a.title} | {a.points} |\n" for a in assignments
    )
    return text.replace("{{ install }}", install).replace(
        "{{ assignments }}", f"| folder | assignment | points |\n|---|---|---:|\n{rows}"
    )


# ---- notebooks -------------------------------------------------------------------------------------


def notebook(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """A Jupyter notebook in format 4.5 of these cells."""
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def text_cell(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code_cell(source: str, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "metadata": metadata,
        "source": source,
        "execution_count": None,
        "outputs": [],
    }


def grading_notebook(assignment: Assignment, install: str) -> dict[str, Any]:
    """An assignment as a notebook for nbgrader.

    A student edits the cells that write the answer files; the locked cells after them have the points.
    """
    cells = [
        text_cell((assignment.folder / "README.md").read_text(encoding="utf-8")),
        code_cell(f"%pip install --quiet {install}"),
    ]
    for name in assignment.answers:
        cells.append(code_cell(f"%%writefile {name}\n{answer(assignment, name, solved=False)}"))
    for task in assignment.tasks:
        graded = {
            "grade": True, "grade_id": task.mark, "locked": True, "points": task.points,
            "schema_version": 3, "solution": False, "task": False,
        }  # fmt: skip
        source = (
            "from pathlib import Path\n\nfrom minicnn.testing.grading import require_task\n\n"
            f'require_task(Path.cwd(), "{task.name}")  # {task.title}'
        )
        cells.append(code_cell(source, nbgrader=graded))
    return notebook(cells)


def make_nbgrader(assignments: list[Assignment], target: Path, install: str) -> None:
    """nbgrader's folder source/ANSWER/: a notebook, the tests beside it, no answer file."""
    for assignment in assignments:
        folder = target / "source" / assignment.folder.name
        copy_assignment(assignment, folder, solved=False)
        for name in assignment.answers:
            (folder / name).unlink()
        text = json.dumps(grading_notebook(assignment, install), indent=1) + "\n"
        (folder / f"{assignment.folder.name}.ipynb").write_text(text, encoding="utf-8")


def lesson_cells(text: str, install: str) -> list[dict[str, Any]]:
    """The cells of a lesson in jupytext's percent format; its install line gets the right requirement."""
    cells = []
    for kind, body in re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", text, re.M | re.S):
        if kind:
            cells.append(text_cell(re.sub(r"^# ?", "", body, flags=re.M).strip()))
        else:
            shown = re.sub(r"^# %pip install .*$", f"%pip install --quiet {install}", body, flags=re.M)
            cells.append(code_cell(shown.strip()))
    return cells


def make_notebooks(target: Path, install: str) -> None:
    for path in sorted(NOTEBOOKS.glob("*.py")):
        made = notebook(lesson_cells(path.read_text(encoding="utf-8"), install))
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{path.stem}.ipynb").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


# ---- the command -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Exit status 2 if nothing could be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("student", "solutions", "nbgrader", "notebooks", "slides"))
    parser.add_argument("target", type=Path, help="where it is made")
    parser.add_argument("--only", nargs="+", default=[], metavar="ASSIGNMENT", help="default: all")
    parser.add_argument(
        "--install", default="minicnn", metavar="REQUIREMENT",
        help="what pip installs: a name, a folder, the address of a wheel or of a repository",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    try:
        if args.target.exists() and (args.target.is_file() or any(args.target.iterdir())):
            raise CourseError(f"{args.target}: expected nothing or an empty folder; move it away")
        if args.what == "slides":
            sys.path.insert(0, str(ROOT / "scripts" / "site"))
            from slides import deck  # needs the extra docs

            args.target.write_text(deck(), encoding="utf-8")
        elif args.what == "notebooks":
            make_notebooks(args.target, args.install)
        elif args.what == "nbgrader":
            make_nbgrader(read_tree(COURSE, args.only), args.target, f"{args.install} pytest")
        else:
            make_tree(
                read_tree(COURSE, args.only), args.target,
                solved=args.what == "solutions", install=f"{args.install} pytest",
            )  # fmt: skip
    except (CourseError, ValueError, mutants.MutantError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.what}: {args.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
