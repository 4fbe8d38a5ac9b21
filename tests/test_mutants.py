"""scripts/mutants.py: every mutant can still be planted, and the runner tells kills from survivors."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import Mutant

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = mutants.read_table(ROOT)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutant_can_be_planted(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert mutant.planted(text) != text
    for file in mutant.tests.split():
        assert (ROOT / file).is_file()


def test_table_covers_the_three_languages() -> None:
    languages = Counter(mutant.language for mutant in MUTANTS)
    assert languages.total() >= 40
    assert min(languages[name] for name in ("Python", "C++", "CUDA")) >= 10
    assert {mutant.language for mutant in MUTANTS if mutant.quick} == {"Python", "C++", "CUDA"}


# ---- the runner, on a checkout of two files --------------------------------------------------------

CODE = "def larger(a, b):\n    return a if a > b else b\n\n\ndef negative(a):\n    return -a\n"
TESTS = "import code_\n\n\ndef test_larger():\n    assert code_.larger(1, 2) == 2\n    code_.negative(1)\n"
KILLED = ("swapped", "a if a > b else b", "b if a > b else a")
SURVIVOR = ("sign", "return -a", "return a")
HANGS = ("hangs", "return -a", "while True: pass")
CRASHES = ("crashes", "return -a", "import os; os.abort()")


def checkout(folder: Path, *rows: tuple[str, str, str], test: str = TESTS) -> Path:
    """A git checkout of a module, its test and a table of mutants."""
    for name, text in {"code_.py": CODE, "tests/test_code.py": test, "conftest.py": ""}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    table = "".join(
        f"[[mutant]]\nname = '{name}'\nfile = 'code_.py'\nfind = '{find}'\nreplace = '{replace}'\n"
        "bug = 'wrong'\ntests = 'tests/test_code.py'\n"
        for name, find, replace in rows
    )
    (folder / mutants.TABLE).mkdir()
    (folder / mutants.TABLE / "numpy.toml").write_text(table)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message", "x"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def test_kill_is_recorded_and_the_file_put_back(tmp_path: Path) -> None:
    root, saved = checkout(tmp_path, KILLED), tmp_path / "saved.json"
    assert mutants.main(["--save", str(saved)], root) == 0
    (row,) = json.loads(saved.read_text())
    assert (row["name"], row["killed"], row["language"]) == ("swapped", True, "Python")
    assert row["by"] == "tests/test_code.py::test_larger"
    assert row["commit"] == mutants.git(root, "rev-parse", "HEAD")[:12]
    assert (root / mutants.WORK / "tree" / "code_.py").read_text() == CODE


def test_survivor_fails_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, saved = checkout(tmp_path, KILLED, SURVIVOR), tmp_path / "saved.json"
    assert mutants.main(["s*", "--save", str(saved)], root) == 1
    assert [row["killed"] for row in json.loads(saved.read_text())] == [True, False]
    assert "1 of 2 killed; survived: sign" in capsys.readouterr().out
    assert mutants.main(["swapped", "--save", str(saved)], root) == 0
    assert [row["name"] for row in json.loads(saved.read_text())] == ["swapped", "sign"]


def test_crashes_and_hangs_are_kills(tmp_path: Path) -> None:
    root, saved = checkout(tmp_path, CRASHES, HANGS), tmp_path / "saved.json"
    assert mutants.main(["--limit", "15", "--save", str(saved)], root) == 0
    assert [row["by"] for row in json.loads(saved.read_text())] == ["a crash (SIGABRT)", "the time limit"]


@pytest.mark.parametrize(
    ("row", "test", "message"),
    [
        (("stale", "return +a", "return a"), TESTS, "stale: code_.py: expected once, found 0 times"),
        (("vague", "return", "yield"), TESTS, "vague: code_.py: expected once, found 2 times"),
        (("syntax", "return -a", "return ("), TESTS, "SyntaxError"),
        (KILLED, TESTS.replace("== 2", "== 3"), "fails without a bug: tests/test_code.py::test_larger"),
        (KILLED, "", "no tests ran"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_no_mutant_is_an_error(
    row: tuple[str, str, str], test: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutants.main([], checkout(tmp_path, row, test=test)) == 2
    assert message in capsys.readouterr().err


def test_unknown_name_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["nobody"], checkout(tmp_path, KILLED)) == 2
    assert "no mutant is called nobody" in capsys.readouterr().err


def test_saved_results_are_those_of_the_table() -> None:
    rows = json.loads((ROOT / mutants.RESULTS).read_text())
    assert sorted(row["name"] for row in rows) == sorted(mutant.name for mutant in MUTANTS)
    assert all(row["killed"] and row["by"] and row["commit"] for row in rows)
