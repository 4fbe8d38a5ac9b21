"""How long this machine takes to wake a thread, measured once and kept in the cache of modules."""

from __future__ import annotations

import functools
import json
import math
import os
from types import ModuleType
from typing import TypeGuard

from minicnn.backends import compiler, module_cache
from minicnn.backends.module_file import BuildError

FILE = "waking.json"

Waking = tuple[float, float]
"""Seconds that the call takes, and until the thread computes."""


@functools.cache
def waking(module: ModuleType) -> Waking:
    """What the compiled CPU module measures, or what was measured here before."""
    machine = f"{os.cpu_count()} processors, {' '.join(compiler.cpu_features())}"
    kept = _kept()
    found = kept.get(machine)
    if _is_waking(found):
        return found[0], found[1]
    measured = module.measure_waking()
    _keep(kept | {machine: measured})
    return float(measured[0]), float(measured[1])


def _kept() -> dict[str, object]:
    try:
        kept = json.loads(module_cache.read(module_cache.root() / FILE))
    except (BuildError, FileNotFoundError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _is_waking(found: object) -> TypeGuard[list[float]]:
    return (
        isinstance(found, list)
        and len(found) == 2
        and all(isinstance(value, float) and math.isfinite(value) and value >= 0 for value in found)
    )


def _keep(kept: dict[str, object]) -> None:
    """Where nothing can be kept, every process measures for itself, which takes some milliseconds."""
    try:
        module_cache.prepare(module_cache.root())
        module_cache.write(module_cache.root() / FILE, json.dumps(kept))
    except (BuildError, OSError):
        return
