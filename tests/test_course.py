"""The course: students get gaps, solutions earn all points, and no answer breaks the grader."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from minicnn import __version__
from minicnn.testing import grade, grading
from minicnn.testing.grading import Assignment, Task
from scripts import course

ROOT = Path(__file__).resolve().parent.parent
ASSIGNMENTS = grading.read_tree(course.COURSE)
ENVIRONMENT = {
    **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that students get; tests change copies of it."""
    tree = tmp_path_factory.mktemp("course") / "students"
    assert course.main(["student", str(tree)]) == 0
    return tree


def run_pytest(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a student's call of pytest gives."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=tree, env=ENVIRONMENT, capture_output=True, text=True, check=False)


# ---- what students get -----------------------------------------------------------------------------


def test_students_get_no_solution(students: Path) -> None:
    for assignment in ASSIGNMENTS:
        folder = students / assignment.folder.name
        for name in assignment.answers:
            text = (folder / name).read_text()
            source = (assignment.folder / name).read_text()
            assert text.count(course.GAPS[Path(name).suffix]) == source.count(course.BEGIN) > 0
            solution = re.search(rf"{course.BEGIN}\n(.*?)\n[^\n]*{course.END}", source, re.S)
            assert solution is not None
            assert solution[1] not in text
    assert not list(students.rglob("planted.toml"))
    everything = "".join(p.read_text() for p in students.rglob("*") if p.is_file())
    assert not re.search(f"{course.BEGIN}|{course.END}|{{{{ ", everything.replace("${{steps", ""))
    assert "padded-off-by-one" not in everything


def test_a_student_begins_with_gaps_and_the_solution_earns_all(students: Path, tmp_path: Path) -> None:
    """In the generated tree, with its own pytest.ini: gaps fail, and the solution has full points."""
    tree = tmp_path / "mine"
    shutil.copytree(students, tree)
    begun = run_pytest(tree, "a1_max_pool", "-m", "task_1_2")
    assert begun.returncode == 1
    assert re.search(r"^4 failed, \d+ deselected", begun.stdout, re.M), begun.stdout
    assert len(re.findall(r"^FAILED .* - NotImplementedError$", begun.stdout, re.M)) == 4
    (first, *_) = ASSIGNMENTS
    (tree / "a1_max_pool/max_pool.py").write_text(course.answer(first, "max_pool.py", solved=True))
    verdicts = grading.grade(grading.read_assignment(tree / "a1_max_pool"))
    assert [verdict.why for verdict in verdicts] == ["passed"] * 4
    assert sum(verdict.earned for verdict in verdicts) == first.points == 10


def test_every_solution_is_right(tmp_path: Path) -> None:
    assert course.main(["solutions", str(tmp_path / "solved")]) == 0
    done = run_pytest(tmp_path / "solved", "-p", "minicnn.testing.grading_plugin", "--grades", "grades")
    assert done.returncode == 0, done.stdout[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "solved/grades").read_text().splitlines()]
    marks = Counter(row["mark"] for row in rows if "mark" in row)
    assert set(marks) == {task.mark for a in ASSIGNMENTS for task in a.tasks}, "each task has a test"
    assert Counter(row["test"] for row in rows if "mark" in row).most_common(1)[0][1] == 1
    assert all(row["outcome"] == "passed" for row in rows if "outcome" in row), "nothing is skipped"


def test_there_are_eight_assignments_in_order() -> None:
    assert len(ASSIGNMENTS) == 8
    for number, assignment in enumerate(ASSIGNMENTS, 1):
        assert assignment.folder.name.startswith(f"a{number}_")
        assert [t.name for t in assignment.tasks] == [
            f"{number}_{k + 1}" for k in range(len(assignment.tasks))
        ]
        readme = (assignment.folder / "README.md").read_text()
        assert readme.startswith(f"# Assignment {number}: ")
        rows = re.findall(r"^\| (\d+_\d+) \| (\d+) \|", readme, re.M)
        assert rows == [(task.name, str(task.points)) for task in assignment.tasks]


def test_points_agree_everywhere(students: Path) -> None:
    total = sum(assignment.points for assignment in ASSIGNMENTS)
    listed = re.findall(r"^\| (\d) \| .*? \| (\d+) \|", (ROOT / "docs/course.md").read_text(), re.M)
    assert listed == [(str(k), str(a.points)) for k, a in enumerate(ASSIGNMENTS, 1)]
    points = json.loads((students / "points.json").read_text())
    assert points["points"] == total
    assert points["assignments"]["a3_conv2d"]["tasks"]["3_2"] == {"title": "the forward pass", "points": 2}
    classroom = json.loads((students / ".github/classroom/autograding.json").read_text())["tests"]
    assert sum(row["points"] for row in classroom) == total
    assert "python -m pytest a3_conv2d -m task_3_2" in [row["run"] for row in classroom]
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with MkDocs")
    job = yaml.safe_load((students / ".github/workflows/classroom.yml").read_text())["jobs"]
    steps = job["run-autograding-tests"]["steps"]
    graded = [step for step in steps if "max-score" in step.get("with", {})]
    assert sum(step["with"]["max-score"] for step in graded) == total
    report = steps[-1]
    assert report["with"]["runners"].split(",") == [step["id"] for step in graded]
    assert set(report["env"]) == {f"{step['id'].upper()}_RESULTS" for step in graded}


def test_notebooks_for_nbgrader(tmp_path: Path) -> None:
    folder = tmp_path / "source/a6_fused"
    assert course.main(["nbgrader", str(tmp_path), "--only", "a6_fused", "--install", "./minicnn"]) == 0
    cells = json.loads((folder / "a6_fused.ipynb").read_text())["cells"]
    graded = [cell["metadata"]["nbgrader"] for cell in cells if "nbgrader" in cell["metadata"]]
    assert [(cell["grade_id"], cell["points"]) for cell in graded] == [
        ("task_6_1", 3), ("task_6_2", 4), ("task_6_3", 4),
    ]  # fmt: skip
    assert all(cell["locked"] and cell["grade"] and not cell["solution"] for cell in graded)
    sources = [cell["source"] for cell in cells]
    assert "%pip install --quiet ./minicnn pytest" in sources
    assert (
        sum("not_implemented();" in source for source in sources if "%%writefile fused.cpp" in source) == 1
    )
    assert not (folder / "fused.cpp").exists()
    assert (folder / "test_fused.py").exists()


# ---- the script refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# BEGIN SOLUTION\nx\n", "a.py: the last solution has no END SOLUTION"),
        ("x\n# END SOLUTION\n", "a.py, line 2: expected BEGIN SOLUTION"),
        ("# BEGIN SOLUTION\n# BEGIN SOLUTION\n", "a.py, line 2: expected END SOLUTION"),
    ],
)
def test_marks_that_do_not_match(text: str, message: str) -> None:
    with pytest.raises(course.CourseError, match=re.escape(message)):
        course.stripped(text, "a.py")


def test_nothing_of_a_student_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert course.main(["student", str(tmp_path)]) == 2
    assert "expected nothing or an empty folder" in capsys.readouterr().err
    assert course.main(["student", str(tmp_path / "new"), "--only", "a9"]) == 2
    assert "expected some of a1_max_pool, " in capsys.readouterr().err


# ---- the grader, on a small assignment ---------------------------------------------------------------

TESTS = """import answer
import pytest

@pytest.mark.task_1_1
@pytest.mark.parametrize("k", [1, 2])
def test_doubled(k):
    assert answer.doubled(k) == 2 * k

@pytest.mark.task_1_2
def test_halved():
    assert answer.halved(4) == 2
"""
RIGHT = "def doubled(k):\n    return 2 * k\n\n\ndef halved(k):\n    return k / 2\n"


def small(folder: Path, answer: str) -> Assignment:
    """An assignment of two tasks with an answer."""
    folder = folder / "a1"
    folder.mkdir()
    (folder / "assignment.toml").write_text(
        'title = "small"\nanswers = ["answer.py"]\nimports = ["numpy"]\n'
        'tasks.1_1 = { title = "double", points = 3 }\ntasks.1_2 = { title = "halve", points = 1 }\n'
    )
    (folder / "test_answer.py").write_text(TESTS)
    (folder / "answer.py").write_text(answer)
    return grading.read_assignment(folder)


@pytest.mark.parametrize(
    ("answer", "earned", "why"),
    [
        (RIGHT.replace("2 * k", "2 if k == 1 else exit()"), [0, 1], "SystemExit"),
        (RIGHT.replace("2 * k", "__import__('os').abort()"), [0, 0], "the tests crashed (SIGABRT)"),
        ("from minicnn.ops import conv2d\n" + RIGHT, [0, 0], "answer.py imports minicnn.ops; allowed are "),
    ],
    ids=["exit in one case", "crash", "import"],
)
def test_answers_fail_in_any_way(tmp_path: Path, answer: str, earned: list[int], why: str) -> None:
    verdicts = grading.grade(small(tmp_path, answer))
    assert [verdict.earned for verdict in verdicts] == earned
    assert why in verdicts[0].why


def test_an_answer_that_never_returns(tmp_path: Path) -> None:
    verdicts = grading.grade(small(tmp_path, "while True:\n    pass\n"), limit=1)
    assert {verdict.why for verdict in verdicts} == {"the tests took longer than 1 seconds"}


def test_tests_that_a_student_changed_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, handed_in = tmp_path / "trusted", tmp_path / "handed in"
    trusted.mkdir()
    small(trusted, RIGHT)
    shutil.copytree(trusted, handed_in)
    (handed_in / "a1/answer.py").write_text(RIGHT.replace("2 * k", "k"))
    (handed_in / "a1/test_answer.py").write_text(TESTS.replace("== 2 * k", "== k"))
    out = tmp_path / "points.json"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert grade.main([str(handed_in), "--tests", str(trusted), "--json", str(out)]) == 1
    assert "a1: 1 of 4 points, small" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["score"], found["max_score"]) == (1, 4)
    assert [(row["score"], row["max_score"]) for row in found["tests"]] == [(0, 3), (1, 1)]
    assert (trusted / "a1/answer.py").read_text() == RIGHT


def test_a_missing_answer_is_not_the_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a student handed in nothing, what the trusted tree has in its place is not graded either."""
    graded: list[str] = []

    def list_files(assignment: Assignment, _: float) -> list[grading.Verdict]:
        graded.extend(sorted(path.name for path in assignment.folder.iterdir()))
        return []

    monkeypatch.setattr(grading, "grade", list_files)
    grading.grade_with_tests_of(small(tmp_path, RIGHT), tmp_path / "nowhere", limit=1)
    assert graded == ["assignment.toml", "test_answer.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 1", "expected a title, answers, and tasks"),
        ("title = ", "expected a title, answers, and tasks"),
        ('title = "a"\nanswers = []\ntasks.one = { title = "b", points = 1 }', "a name such as 3_2"),
        ('title = "a"\nanswers = []\ntasks.1_1 = { title = "b", points = 0 }', "at least one point"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1/assignment.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"assignment\.toml: expected .*{re.escape(message)}|{message}"):
        grading.read_assignment(tmp_path / "a1")


def test_no_assignments_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grade.main([str(tmp_path)]) == 2
    assert "[grading] assignments: expected some of */assignment.toml" in capsys.readouterr().err


def test_a_task_is_asked_for_by_its_name(tmp_path: Path) -> None:
    tasks = Task("1_1", "double", 3), Task("1_2", "halve", 1)
    assert small(tmp_path, RIGHT) == Assignment(tmp_path / "a1", "small", ("answer.py",), ("numpy",), tasks)
    with pytest.raises(ValueError, match="expected one of 1_1, 1_2, got 2_1"):
        grading.require_task(tmp_path / "a1", "2_1")


# ---- notebooks, slides, citation -------------------------------------------------------------------

LESSONS = sorted(course.NOTEBOOKS.glob("*.py"))


def test_jupytext_reads_the_cells_that_the_script_makes(tmp_path: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    assert course.main(["notebooks", str(tmp_path), "--install", "./here"]) == 0
    assert len(LESSONS) == 4
    for path in LESSONS:
        made = json.loads((tmp_path / f"{path.stem}.ipynb").read_text())["cells"]
        read = jupytext.read(path).cells
        assert [(c.cell_type, c.source.replace("--quiet minicnn", "--quiet ./here")) for c in read] == [
            (c["cell_type"], c["source"]) for c in made
        ]
        first = next(cell["source"] for cell in made if cell["cell_type"] == "code")
        assert first.startswith("%pip install --quiet ./here\n")


@pytest.mark.parametrize("name", ["02_convolution", "03_gradients"])
def test_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom; `make notebooks` runs those that train, too."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    values = runpy.run_path(str(course.NOTEBOOKS / f"{name}.py"))
    plt.close("all")
    if name == "02_convolution":
        assert values["maps"][0, 0, values["row"], values["column"]] == pytest.approx(values["by_hand"])
        assert abs(values["difference"][..., 2:]).max() < 1e-12
    else:
        assert values["largest"] < 1e-8
        assert min(values["after"]) < values["loss"]


def test_slides_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="the slides need Markdown, which comes with MkDocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts/site"))
    file = tmp_path / "slides.html"
    assert course.main(["slides", str(file)]) == 0
    text = file.read_text()
    source = (course.COURSE / "slides.md").read_text()
    assert text.count("<section ") == source.count("\n---\n") + 1
    assert text.count("<figure class=") == source.count("{{ picture ")
    weeks = re.findall(r"<h1>Week (\d+):", text)
    assert weeks == [str(week) for week in range(1, 13)]
    assert not re.search(r'(src|href)="(?!data:)|url\(|arithmatex|\{\{', text)
    assert course.main(["slides", str(file)]) == 2, "a file is not overwritten"


def test_citation_names_this_version() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with MkDocs")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__
    assert citation["license"] == "MIT"
