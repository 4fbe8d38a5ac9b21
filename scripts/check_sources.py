"""Two rules that no linter checks: files stay short, and an operation is found under its own name.

python scripts/check_sources.py        prints what breaks a rule, and then ends with exit status 1
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LONG = 400
ENDINGS = (".py", ".cpp", ".h", ".cu", ".cuh")


def sources() -> list[Path]:
    """The existing source files that git tracks."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.splitlines() if name.endswith(ENDINGS) and Path(name).exists()]


def complaints(files: list[Path]) -> list[str]:
    """One sentence for each rule that is broken."""
    found = []
    kernels = {p.stem for p in files if {"cpu", "cuda"} & {*p.parts} and p.stem != "module"}
    for op in sorted(p.stem for p in files if p.parent == Path("minicnn/ops") and p.stem != "__init__"):
        if op not in kernels | {"im2col"} and any("cpu" in p.parts for p in files):
            found.append(f"minicnn/ops/{op}.py: no kernel file {op}.* under csrc")
    return found


def long_files(files: list[Path]) -> list[str]:
    """One line for each file that is longer than most."""
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    return [f"note: {path} has {length} lines" for path, length in lengths.items() if length > LONG]


if __name__ == "__main__":
    problems = complaints(sources())
    print("\n".join([*long_files(sources()), *problems]) or "sources: every operation is found by its name")
    sys.exit(bool(problems))
