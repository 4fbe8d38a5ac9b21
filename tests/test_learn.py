"""The learning path: programs print what pages show, exercises can be solved, questions are answered."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from examples.learn import exercises
from scripts.site import lessons
from scripts.site.sources import ROOT

LEARN = ROOT / "docs" / "learn"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

CLAIMS: dict[str, Any] = {
    "pixels": lambda n: n["accuracy"] > 5 * n["guess"] and n["worst"] == "Shirt",
    "linear": lambda n: n["moved"][0] > 2 * n["moved"][2] and n["anywhere"] < 0.5 * n["moved"][0],
    "convolution": lambda n: n["difference"] == 0 and n["weights"] < 2000 and n["accuracy"] > 0.55,
    "descent": lambda n: n["lower"] < n["loss"] < n["higher"] and abs(n["measured"] - n["slope"]) < 1e-3,
    "backpropagation": lambda n: (
        abs(n["slope"] - n["gradients"]["filters"][0][0][1]) < 1e-3 and n["after"] < n["loss"]
    ),
    "training": lambda n: (
        [run["right"] > 0.5 for run in n["rates"] + n["weights"] + n["norms"]]
        == [False, True, False] + [False] * 3 + [True] * 2
    ),
    "judging": lambda n: (
        n["last_losses"][0] < n["best_losses"][0]
        and n["last_losses"][1] > n["best_losses"][1]
        and n["best"] < 30
    ),
}
"""What a page says of a program's numbers, which must hold on every computer."""


@pytest.mark.parametrize("name", lessons.LESSONS)
def test_a_program_prints_what_its_page_shows(name: str) -> None:
    """Sums are rounded differently on other processors, so the numbers of trained networks may differ."""
    found, shown = lessons.run(name), lessons.saved()[name]
    assert CLAIMS[name](found["numbers"]), found["output"]
    assert CLAIMS[name](shown["numbers"])
    words = [[NUMBER.sub("#", line) for line in text["output"].splitlines()] for text in (found, shown)]
    assert [" ".join(line.split()) for line in words[0]] == [" ".join(line.split()) for line in words[1]]
    if name in ("descent", "backpropagation"):  # these train nothing
        numbers = [[float(v) for v in NUMBER.findall(text["output"])] for text in (found, shown)]
        np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-3, atol=2e-3)


def test_the_sum_of_a_window_is_that_of_the_printed_numbers() -> None:
    line = lessons.saved()["convolution"]["output"].splitlines()[1]
    terms, total = line.split(" = ")
    products = [float(p) * float(w) for p, w in re.findall(r"(\S+)\*(\S+)", terms)]
    assert len(products) == terms.count(" + ") + 1 == 9
    assert f"{sum(products):.3f}" == total


def test_a_lesson_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lessons.py", "swish"])
    with pytest.raises(SystemExit):
        lessons.main()
    assert "invalid choice: 'swish'" in capsys.readouterr().err


def test_each_chapter_shows_its_program_and_exercises() -> None:
    for name in lessons.LESSONS:
        text = (LEARN / f"{name}.md").read_text(encoding="utf-8")
        assert f"{{{{ exercises {name} }}}}" in text
        assert f"{{{{ source examples/learn/{name}.py" in text
        assert f"{{{{ value {name}." in text
        assert re.search(r"^\{\{ picture learn_", text, re.M)
        assert 500 < len(text.split()) < 2000, "a chapter is read in a quarter of an hour"


# ---- exercises -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", exercises.names())
def test_solutions_are_right_and_gaps_are_not(name: str) -> None:
    path = exercises.TASKS / f"{name}.py"
    tasks = exercises.tasks(path.read_text(encoding="utf-8"))
    assert 3 <= len(tasks) <= 5
    assert all(len(ast.get_docstring(task) or "") > 20 for task in tasks), "each task has a question"
    assert list(exercises.verdicts(name, exercises.load(path))) == [(task.name, "right") for task in tasks]
    gaps: dict[str, Any] = {}
    exec(compile(exercises.file_with_gaps(name), name, "exec"), gaps)
    assert {verdict for _, verdict in exercises.verdicts(name, SimpleNamespace(**gaps))} == {"not yet"}


@pytest.mark.parametrize("name", exercises.names())
def test_wrong_answers_are_noticed(name: str) -> None:
    """An answer that is always 0 solves nothing."""
    zero = {task.name: lambda *_: np.zeros(()) for task in tasks_of(name)}
    verdicts = [verdict for _, verdict in exercises.verdicts(name, SimpleNamespace(**zero))]
    assert "right" not in verdicts


def tasks_of(name: str) -> list[ast.FunctionDef]:
    return exercises.tasks((exercises.TASKS / f"{name}.py").read_text(encoding="utf-8"))


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = ROOT / "examples/learn/exercises.py"
    return subprocess.run([sys.executable, program, *words], cwd=folder, capture_output=True, text=True)


def test_a_reader_solves_exercises(tmp_path: Path) -> None:
    assert "relu.py written" in command(tmp_path, "write", "relu").stdout
    again = command(tmp_path, "write", "relu")
    assert again.returncode == 2
    assert "relu.py exists already" in again.stderr
    answers = tmp_path / "relu.py"
    head, _, rest = answers.read_text(encoding="utf-8").partition(exercises.GAP)
    answers.write_text(f"{head}    return np.maximum(x, 1)\n{rest}", encoding="utf-8")
    checked = command(tmp_path, "check", "relu.py")
    assert checked.returncode == 1
    assert "relu: wrong: Not equal" in checked.stdout
    assert "leaky: not yet" in checked.stdout
    answers.write_text("def relu(x:\n", encoding="utf-8")
    broken = command(tmp_path, "check", "relu.py")
    assert (broken.returncode, "cannot be run: SyntaxError" in broken.stderr) == (2, True)
    assert "expected one of backpropagation, " in command(tmp_path, "check", "swish.py").stderr


# ---- questions -------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown names them."""
    from markdown.extensions.toc import slugify

    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {slugify(heading, "-") for heading in headings}


def test_each_question_has_an_answer_on_the_path() -> None:
    pytest.importorskip("markdown", reason="Python-Markdown comes with MkDocs")
    text = (LEARN / "questions.md").read_text(encoding="utf-8")
    asked = re.findall(r"^\d+\. .*\?.* \[Answer\]\((\w+)\.md#([\w-]+)\)$", text, re.M)
    assert len(asked) == 10
    for page, anchor in asked:
        assert anchor in anchors(LEARN / f"{page}.md"), f"{page}.md has no {anchor}"
    assert {page for page, _ in asked} == set(lessons.LESSONS)
