"""What a run was computed with, for its reader: versions, commit, processor, time."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import minicnn
from minicnn.backends import Backend, torch_package
from minicnn.backends.programs import answer

ROOT = Path(minicnn.__file__).resolve().parent.parent


def about(backend: Backend) -> dict[str, Any]:
    """What computes here and now, ready for JSON.

    ``torch`` is among the versions if the backend uses it.  ``commit`` and ``uncommitted_changes``, which
    says whether there are others, are None where the sources are no git checkout.  ``time`` is in UTC.
    """
    commit = _commit(ROOT)
    return {
        "computed_by": backend.label,
        "versions": versions(backend),
        "commit": commit,
        "uncommitted_changes": None if commit is None else _is_changed(ROOT),
        "processor": processor(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(backend: Backend) -> dict[str, str | None]:
    """The versions of what computes; torch's where the backend uses it."""
    found: dict[str, str | None] = {
        "minicnn": minicnn.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return found if backend.name == "numpy" else found | {"torch": torch_package.version()}


@cache
def _commit(checkout: Path) -> str | None:
    """The commit of a git checkout; None if the folder is none, even if it lies inside another one."""
    if not (checkout / ".git").exists():
        return None
    return (answer("git", "-C", str(checkout), "rev-parse", "HEAD") or "").strip() or None


@cache
def _is_changed(checkout: Path) -> bool:
    return answer("git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=no") != ""


@cache
def processor() -> str:
    """The processor's name, or its architecture where the system does not tell more."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()
