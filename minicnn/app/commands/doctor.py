"""``minicnn doctor``: what each backend has, lacks and needs on this machine.

Works without torch, a compiler or a GPU, and builds nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicnn.app.command_line import Parser
from minicnn.backends import available_backends, build, choice, cuda_build


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
        Finding("Python", f"{platform.python_version()} at {sys.executable}"),
        Finding("NumPy", f"{np.__version__}, BLAS {blas.get('name', 'unknown')}"),
    ]


def _cpu() -> list[Finding]:
    features = [name for name in build.cpu_features() if name.startswith(("avx", "fma", "asimd", "sve"))]
    threads = os.environ.get("OMP_NUM_THREADS", f"{_cores()} (one a core; change with --threads)")
    return [
        Finding(
            "CPU", f"{platform.machine()}, {_cores()} cores, {' '.join(features) or 'features unknown'}"
        ),
        Finding("threads", threads),
    ]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiling() -> list[Finding]:
    version, compiler, ninja = build.torch_version(), build.compiler(), build.ninja()
    folder = build.cache_folder()
    return [
        _found("torch", version, build.INSTALL_TORCH),
        _found(
            "C++ compiler", compiler and f"{build.compiler_version()} at {compiler}", build.INSTALL_COMPILER
        ),
        _found("ninja", None if ninja is None else str(ninja), build.INSTALL_NINJA),
        Finding("build cache", str(folder), "" if _writable(folder) else "set MINICNN_CACHE to a folder"),
        _module("cpp module", build.CPU),
        _winograd(),
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


def _found(part: str, found: str | None, remedy: str) -> Finding:
    return Finding(part, "none", remedy) if found is None else Finding(part, found)


def _module(part: str, spec: build.ModuleSpec) -> Finding:
    try:
        path, reasons = build.find_module(spec)
    except build.BuildError as error:
        return Finding(part, "none", str(error))
    if path is not None:
        return Finding(part, str(path))
    stale = "; ".join(["none yet, built on first use", *reasons])
    return Finding(part, stale, "pip install --no-build-isolation .")


def _writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK)


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
    return _last_line([smi, "--query-gpu=name,driver_version", "--format=csv,noheader"])


def _last_line(command: list[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None


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


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.doctor") -> None:
    """Print a table of the findings."""
    Parser(
        prog,
        "",
        "Show what each backend has and lacks on this machine, and the command that puts it right.",
    ).parse_args(argv)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="minicnn doctor")
    for heading in Finding._fields:
        table.add_column(heading, overflow="fold")
    for finding in findings():
        table.add_row(*map(escape, finding), style="yellow" if finding.remedy else None)
    Console().print(table)
