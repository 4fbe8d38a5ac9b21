"""``minicnn doctor``: what each backend has, lacks and needs on this machine.

Works without torch, a compiler or a GPU, and builds nothing.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicnn import __version__
from minicnn.app import provenance
from minicnn.app.command_line import Parser
from minicnn.backends import (
    available_backends,
    build,
    carried,
    choice,
    compiler,
    cuda_build,
    module_cache,
    tile_unit,
    torch_package,
)
from minicnn.backends.module_file import CPU, BuildError, ModuleSpec
from minicnn.backends.programs import answer
from minicnn.files import to_json


class Finding(NamedTuple):
    """One line of the report; ``remedy`` is empty where nothing is missing."""

    part: str
    found: str
    remedy: str = ""


def findings() -> list[Finding]:
    """Everything that the backends use, in the order in which they need it."""
    return [*_python(), *_cpu(), *_compiling(), *_cuda(), *_backends()]


def _python() -> list[Finding]:
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return [
        Finding("minicnn", f"{__version__} at {Path(__file__).parent.parent.parent}"),
        Finding("Python", f"{platform.python_version()} at {sys.executable}"),
        Finding("NumPy", f"{np.__version__}, BLAS {blas.get('name', 'unknown')}"),
    ]


def _cpu() -> list[Finding]:
    features = [name for name in compiler.cpu_features() if name.startswith(("avx", "fma", "asimd", "sve"))]
    machine = f"{platform.machine()}, {_cores()} cores, {' '.join(features) or 'features unknown'}"
    threads = os.environ.get("OMP_NUM_THREADS", f"{_cores()} (one a core; change with --threads)")
    return [
        Finding("CPU", f"{provenance.processor()}, {machine}"),
        Finding("threads", threads),
    ]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiling() -> list[Finding]:
    command, ninja, torch = compiler.command(), compiler.ninja(), torch_package.version()
    called = command and f"{compiler.version() or 'no version'} at {shlex.join(command)}"
    return [
        Finding("torch", torch or "none", torch_package.missing() or ""),
        Finding("C++ compiler", called or "none", compiler.missing() or ""),
        _found("ninja", None if ninja is None else str(ninja), compiler.INSTALL_NINJA),
        _cache(),
        _module("cpp module", CPU),
        _winograd(),
        _bfloat16(),
    ]


def _winograd() -> Finding:
    given = os.environ.get("MINICNN_WINOGRAD", "1")
    found = {
        "0": "off: convolutions of the cpp backend are direct sums",
        "1": "on: wide 3x3 convolutions of the cpp backend in float32 are faster, and rounded by one digit "
        "more; MINICNN_WINOGRAD=0 turns it off",
    }
    return Finding(
        "Winograd", found.get(given, given), "" if given in found else "set MINICNN_WINOGRAD to 0 or 1"
    )


def _bfloat16() -> Finding:
    try:
        return Finding("bfloat16", f"cpp multiplies by {tile_unit.chosen()}")
    except ValueError as error:
        return Finding("bfloat16", os.environ["MINICNN_TILE_UNIT"], str(error))
    except BuildError as error:
        return Finding("bfloat16", "unknown", str(error))


def _found(part: str, found: str | None, remedy: str) -> Finding:
    return Finding(part, "none", remedy) if found is None else Finding(part, found)


def _cache() -> Finding:
    try:
        folder = module_cache.root()
    except BuildError as error:
        return Finding("build cache", "none", str(error))
    return Finding("build cache", str(folder), module_cache.refusal(folder) or "")


def _module(part: str, spec: ModuleSpec) -> Finding:
    try:
        path, reasons = build.find_module(spec)
    except BuildError as error:
        return Finding(part, "none", str(error))
    if path is not None:
        return Finding(part, f"{path}{_why_carried(path)}")
    stale = "; ".join(["none yet, built on first use", *reasons])
    return Finding(part, stale, "pip install --no-build-isolation .")


def _why_carried(path: Path) -> str:
    """Which of a wheel's modules this is, and why; empty for a module that was built here."""
    found = carried.chosen()
    if found.path != path or found.level is None:
        return f", built here; {refused}" if (refused := carried.refusal()) else ""
    return f", the wheel's for {found.level.name}: {found.why}"


def _cuda() -> list[Finding]:
    version, home = cuda_build.toolkit_version(), cuda_build.cuda_home()
    return [
        Finding(
            "CUDA toolkit",
            f"{version} at {home}" if version else "none",
            cuda_build.missing_for_build() or "",
        ),
        _found("NVIDIA driver", _driver(), "needed for --backend cuda only: install NVIDIA's driver"),
        _module(f"{cuda_build.label()} module", cuda_build.module_spec()),
    ]


def _driver() -> str | None:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    said = answer(smi, "--query-gpu=name,driver_version", "--format=csv,noheader") or ""
    return said.strip().rpartition("\n")[2] or None


def _backends() -> list[Finding]:
    labels = {"cuda": cuda_build.label()}
    lines = [
        Finding(
            f"backend {labels.get(name, name)}",
            "available" if reason is None else "not available",
            reason or "",
        )
        for name, reason in available_backends().items()
    ]
    name, why = choice()
    return [*lines, Finding("backend auto", f"takes {name}: {why}")]


def as_json() -> dict[str, Any]:
    """All that the table says; and each backend's reason why not, and the backend that auto takes."""
    return {
        "findings": [finding._asdict() for finding in findings()],
        "backends": available_backends(),
        "auto": choice()[0],
    }


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.doctor") -> None:
    """Print a table of the findings, or JSON."""
    parser = Parser(
        prog,
        "[--json]",
        "Show what each backend has and lacks on this machine, and the command that puts it right.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    if parser.parse_args(argv).json:
        print(to_json(as_json(), indent=2))
        return
    from rich.table import Table

    from minicnn.app.console import PlainConsole

    table = Table(title="minicnn doctor")
    for heading in Finding._fields:
        table.add_column(heading, overflow="fold")
    for finding in findings():
        table.add_row(*finding, style="yellow" if finding.remedy else None)
    PlainConsole().print(table)
