"""Exercises on a page: the question, what the reader begins with, and the folded solution."""

from __future__ import annotations

import ast

from sources import ROOT, fence

from examples.learn.exercises import GAP, TASKS, tasks


def exercises(name: str) -> str:
    """The tasks of examples/learn/tasks/NAME.py as Markdown.  Raises LookupError if there are none."""
    path = TASKS / f"{name}.py"
    if not path.exists():
        raise LookupError(f"no exercises {path.relative_to(ROOT)}")
    text = path.read_text(encoding="utf-8")
    parts = [
        f"Write the missing lines. `python examples/learn/exercises.py write {name}` makes a file to "
        f"begin with, and "
        f"`python examples/learn/exercises.py check {name}.py` says which of your answers are right."
    ]
    for number, task in enumerate(tasks(text), 1):
        parts.append(_question(number, task))
        lines = text.splitlines()
        head = lines[task.lineno - 1 : task.body[0].lineno - 1]
        body = lines[task.body[1].lineno - 1 : task.end_lineno]
        parts.append(fence("\n".join([*head, GAP]), "python"))
        solution = _indented(fence("\n".join([*head, *body]), "python"))
        parts.append(f'??? success "Solution"\n{solution}')
    return "\n\n".join(parts)


def _question(number: int, task: ast.FunctionDef) -> str:
    first, _, rest = (ast.get_docstring(task) or "").partition("\n\n")
    return f"**{number}.** {first}" + (f"\n\n{rest}" if rest else "")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
