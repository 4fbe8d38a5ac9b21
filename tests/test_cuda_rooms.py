"""Where the CUDA sources stand: general code apart from convolution, and the same names as on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
CORE = sorted((CSRC / "cuda" / "core").iterdir())


def included(path: Path) -> set[Path]:
    """The project's headers that a file includes, and those that they include."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        source = waiting.pop()
        for name in re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE):
            header = (source.parent / name).resolve()
            if header.exists() and header not in found:
                found.add(header)
                waiting.append(header)
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_general_code_knows_no_convolution(path: Path) -> None:
    names = [header.relative_to(CSRC).as_posix() for header in included(path)]
    assert [name for name in names if "conv2d" in name or name == "ops.h"] == []
    assert not re.search("conv2d|ConvParams", path.read_text())


def test_every_operation_has_one_name_on_both_sides() -> None:
    cpu = {path.stem for path in (CSRC / "cpu").glob("*.cpp")}
    cuda = {path.stem for path in [*(CSRC / "cuda").glob("*.cu"), CSRC / "cuda" / "module.cpp"]}
    halves = {stem for stem in cuda - cpu if any(stem.startswith(f"{op}_") for op in cpu)}
    assert cpu == cuda - halves


def test_no_source_file_has_the_name_of_another() -> None:
    """Object files of one module share a folder."""
    stems = [path.stem for path in (CSRC / "cuda").rglob("*.cu")]
    assert len(stems) == len(set(stems))
