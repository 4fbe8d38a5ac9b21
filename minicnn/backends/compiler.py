"""The C++ compiler that builds the modules: what it is called, which one it is, and its flags.

setup.py loads this file on its own, so it imports nothing of minicnn.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .programs import answer, ask

INSTALL = "apt install g++ (or name yours in CXX)"
INSTALL_NINJA = "pip install ninja"

PRINT_MACROS = ("-dM", "-E", "-x", "c++", os.devnull)
"""With these arguments a compiler prints the macros that it predefines."""
LINK_FLAGS = ["-fopenmp"]
WERROR = ["-Werror"] if os.environ.get("MINICNN_WERROR") == "1" else []

_CPU_FEATURE = re.compile(
    r"(sse|ssse|avx|amx|fma|f16c|bmi|abm|popcnt|movbe|adx|gfni|vaes|vpclmul|pclmul|aes|sha_ni|rdseed|xop|sve|asimd)"
)
_OWN_NAME = re.compile(r"^\S+ (?=\()")
"""What GCC calls itself at the start of its version: the name by which it was called."""


# ---- which compiler --------------------------------------------------------------------------------


def command() -> list[str] | None:
    """The words of CXX, such as ``ccache g++ -m64``, or c++, with the program's path as the first.

    None if that program is not installed, or if the words of CXX cannot be told apart.
    """
    try:
        words = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    except ValueError:
        return None
    program = shutil.which(words[0])
    # Links are not followed: ccache knows by its name which compiler it stands for.
    return None if program is None else [str(Path(program).absolute()), *words[1:]]


def version() -> str | None:
    """The first line that the compiler prints for --version; None if there is no compiler that answers."""
    found = command()
    return None if found is None else _version(tuple(found), os.environ.get("PATH", ""))


def identity() -> str | None:
    """Which compiler it is, whatever it is called; None if there is no compiler that answers.

    It is the version without the compiler's name, and a hash of all macros that the whole command
    predefines.  Those tell g++ from clang++ behind ccache, and -m32 from -m64; c++ and g++ are one compiler
    where both names lead to the same.
    """
    found = command()
    return None if found is None else _identity(tuple(found), os.environ.get("PATH", ""))


def missing() -> str | None:
    """Why nothing can be compiled here, and how to fix it; None if there is a compiler that answers."""
    found = command()
    if found is None:
        given = os.environ.get("CXX")
        got = f" (CXX is {given!r})" if given else ""
        return f"no C++ compiler{got}; install one with: {INSTALL}"
    if identity() is None:
        said = _complaint(*found)
        return f"{shlex.join(found)} is no C++ compiler that works{said}; install one with: {INSTALL}"
    return None


@cache
def _version(found: tuple[str, ...], _path: str) -> str | None:
    """The first line of --version; a program such as ccache looks for the compiler on PATH."""
    return (answer(*found, "--version") or "").partition("\n")[0].strip() or None


@cache
def _identity(found: tuple[str, ...], path: str) -> str | None:
    first, macros = _version(found, path), answer(*found, *PRINT_MACROS)
    if first is None or macros is None or "#define" not in macros:
        return None
    lines = "\n".join(sorted(macros.splitlines()))
    return f"{_OWN_NAME.sub('', first)}, macros {hashlib.sha256(lines.encode()).hexdigest()[:8]}"


def _complaint(*found: str) -> str:
    """The first line of what a compiler says that fails, in brackets; empty if it says nothing."""
    done = ask(*found, *PRINT_MACROS)
    said = done.stderr.strip().partition("\n")[0] if done else ""
    return f" ({said})" if said else ""


def one_word(folder: Path) -> str | None:
    """CXX as torch's build takes it, which is one program.

    For a command of several words this is a script that runs it, which is written into the folder.
    None if there is no compiler.
    """
    words = command()
    if words is None:
        return None
    if len(words) == 1:
        return words[0]
    script = folder / "c++"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o700)
    return str(script)


# ---- how it is called ------------------------------------------------------------------------------


@cache
def cpu_features() -> list[str]:
    """The CPU's instruction sets; empty if the operating system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return sorted(filter(_CPU_FEATURE.match, line.group(1).split())) if line else []


def native_flags() -> tuple[str, ...]:
    """The flags by which the compiler may use all of this CPU's instructions."""
    if not cpu_features():
        return ()
    return ("-mcpu=native" if platform.machine() == "aarch64" else "-march=native",)


def flags(target: Sequence[str] | None = None) -> list[str]:
    """The compiler's flags, which keep NaN and infinity.

    target: the flags that say which instructions it may use; by default those of `native_flags`
    """
    found = [
        "-O3", "-g0", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wextra",
        "-Wno-missing-field-initializers",  # pybind11's module macro would raise it
        "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    ]  # fmt: skip
    return [*found, *(native_flags() if target is None else target), *WERROR]


def ninja() -> Path | None:
    """The ninja program: on PATH, or beside this Python.  None if there is none."""
    found = shutil.which(
        "ninja", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    )
    return None if found is None else Path(found)


def parallel_jobs() -> int:
    """How many compiler processes run at once: one for each core, if each has 2 GiB of memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory >> 31))
