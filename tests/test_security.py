"""SECURITY.md promises nothing that no test shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEST = re.compile(r"`(tests/test_\w+\.py)::(test_\w+)`")


def promises() -> list[str]:
    """Each promise with its tests, as one text."""
    _, _, section = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## What we promise\n")
    section = section.partition("\n## ")[0]
    return [" ".join(item.split()) for item in re.findall(r"^- (.*?)(?=^- |^#|\Z)", section, re.M | re.S)]


def functions_in(file: str) -> set[str]:
    """The names of the test functions in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_promises() -> None:
    assert len(promises()) >= 15


@pytest.mark.parametrize("promise", promises())
def test_every_promise_names_tests_that_exist(promise: str) -> None:
    named = TEST.findall(promise)
    assert named, f"no test shows: {promise}"
    assert promise.count("::") == len(named), f"a test is misspelt: {promise}"
    for file, test in named:
        assert test in functions_in(file), f"{file} has no {test}"
