"""The register tiles keep their sums in registers: read off the assembly that the compiler makes of them.

A tile whose accumulators live in memory gives right results, only late, so no other test sees it.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

from minicnn.backends import compiler, module_file

LEVELS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}
TILES = ("core/tile.cpp", "core/gradient_tile.cpp", "conv2d/sparse_sum.cpp")
LABEL, FUNCTION = re.compile(r"(\.?L\w+):"), re.compile(r"(_Z\w+):")
JUMP = re.compile(r"\tj\w+\t(\.?L\w+)$")
MULTIPLY_ADD = re.compile(r"\tvfn?m(add|sub)\w*p[sd]\t")
ON_STACK = re.compile(r"\tv\w+\t.*\(%r[sb]p\)")


def assembly(source: Path, level: str) -> list[str]:
    command = compiler.command()
    if command is None or platform.machine() != "x86_64":
        pytest.skip("the assembly of x86-64 is read, which needs a compiler for it")
    flags = [flag for flag in compiler.flags() if not flag.startswith("-march")]
    command += ["-std=c++17", "-fPIC", *flags, f"-march={level}", "-S", "-o", "-", str(source)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def loops_of_sums(lines: list[str]) -> dict[str, list[list[str]]]:
    """Function -> its innermost loops that multiply and add vectors, as lines of assembly."""
    found: dict[str, list[list[str]]] = {}
    function, labels = "", {}
    for number, line in enumerate(lines):
        if match := FUNCTION.match(line):
            function, labels = match[1], {}
        elif match := LABEL.match(line):
            labels[match[1]] = number
        elif (match := JUMP.match(line)) and match[1] in labels:
            body = lines[labels[match[1]] : number + 1]
            inner = any((m := JUMP.match(other)) and m[1] in labels for other in body[:-1])
            if not inner and sum(bool(MULTIPLY_ADD.match(other)) for other in body) > 1:
                found.setdefault(function, []).append(body)
    return found


def in_memory(lines: list[str]) -> list[str]:
    """The functions with a loop of sums that reads or writes vectors on the stack."""
    return [
        function
        for function, loops in loops_of_sums(lines).items()
        if any(ON_STACK.match(line) for body in loops for line in body)
    ]


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("name", TILES)
def test_no_tile_keeps_its_sums_in_memory(name: str, level: str) -> None:
    lines = assembly(module_file.source_folder() / "cpu" / name, level)
    assert len(loops_of_sums(lines)) >= 20
    assert in_memory(lines) == []


def test_sums_in_memory_are_found(tmp_path: Path) -> None:
    """More accumulators than there are registers."""
    source = tmp_path / "many.cpp"
    source.write_text(
        f'#include "{module_file.source_folder()}/cpu/core/tile.h"\n'
        "template void minicnn::plain_tile<8, 2, 1, 12, float>(\n"
        "    const minicnn::TileInput<float>&, const minicnn::TileOutput<float>&);\n"
    )
    (function,) = in_memory(assembly(source, LEVELS["avx2"]))
    assert "plain_tile" in function
