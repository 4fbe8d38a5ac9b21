"""``python -m minicnn.testing.grade TREE``: the points of a student's assignments.

With ``--tests COURSE`` only the answers are taken from TREE, and the tests from COURSE, a tree that
``scripts/course.py student`` made.  Answers are programs: run strangers' in a container.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from minicnn.testing import grading
from minicnn.text import one_line


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 if all points were earned, 1 if some were not, 2 if there is nothing to grade."""
    parser = argparse.ArgumentParser(prog="python -m minicnn.testing.grade", description=__doc__)
    parser.add_argument("tree", type=Path, help="a folder of assignments")
    parser.add_argument("--only", nargs="+", default=[], metavar="ASSIGNMENT", help="default: all")
    parser.add_argument("--tests", type=Path, metavar="COURSE", help="a tree whose tests are used")
    parser.add_argument("--json", type=Path, metavar="FILE", help="score and max_score, in all and by task")
    parser.add_argument(
        "--limit",
        type=float,
        default=grading.LIMIT,
        metavar="SECONDS",
        help="for the tests of an assignment",
    )
    args = parser.parse_args(arguments)
    try:
        verdicts = []
        for assignment in grading.read_tree(args.tests or args.tree, args.only):
            found = (
                grading.grade_with_tests_of(assignment, args.tree / assignment.folder.name, args.limit)
                if args.tests
                else grading.grade(assignment, args.limit)
            )
            earned = sum(verdict.earned for verdict in found)
            print(f"{assignment.folder.name}: {earned} of {assignment.points} points, {assignment.title}")
            for verdict in found:
                points = f"{verdict.earned}/{verdict.task.points}"
                print(
                    f"  {verdict.task.name:5} {points:>5}  {verdict.task.title}: {_last_line(verdict.why)}"
                )
            verdicts += found
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    summary = grading.results(verdicts)
    print(f"{summary['score']} of {summary['max_score']} points")
    if args.json:
        try:
            args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"[grade] --json: expected a file that can be written, got {error}", file=sys.stderr)
            return 2
    return 0 if summary["score"] == summary["max_score"] else 1


def _last_line(text: str) -> str:
    """The last line that says something, cut to a console's width."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1])[:160] if lines else "no test ran"


if __name__ == "__main__":
    sys.exit(main())
