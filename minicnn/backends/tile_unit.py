"""How the cpp backend multiplies in bfloat16 on this machine, and why.

It is the choice that csrc/cpu/bfloat16/tile_route.cpp makes when the backend is first used.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import NamedTuple

from . import build, compiler

VALUES = ("auto", "none", "vector", "emulated")
"""What the environment variable MINICNN_TILE_UNIT may be."""

_ARCH_PRCTL, _GET_SUPPORTED, _TILE_DATA = 158, 0x1021, 18
"""The system call on x86-64 that tells which states of the processor a process may ask for, and AMX's."""

_MEANS = {
    "native": "the tile unit (AMX)",
    "vector": "AVX512-BF16",
    "emulated": "the tile unit in plain C++, which is slow and serves tests",
    "none": "values widened to float32",
}


class TileUnit(NamedTuple):
    """Which way is taken, one of ``native``, ``vector``, ``emulated`` and ``none``, and why."""

    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{_MEANS[self.kind]}, because {self.reason}"


def chosen() -> TileUnit:
    """The way that convolutions and dense layers of the cpp backend take in bfloat16.

    Raises ValueError if MINICNN_TILE_UNIT is none of VALUES, or ``vector`` without AVX512-BF16; BuildError
    if MINICNN_CPU_LEVEL is no level.
    """
    features = compiler.cpu_features()
    wanted, has_vectors = os.environ.get("MINICNN_TILE_UNIT", "auto"), "avx512_bf16" in build.features()
    if wanted not in VALUES or (wanted == "vector" and not has_vectors):
        got = "vector on a processor without AVX512-BF16" if wanted == "vector" else wanted
        raise ValueError(f"[doctor] MINICNN_TILE_UNIT: expected {', '.join(VALUES)}, got {got}")
    if wanted != "auto":
        return TileUnit(wanted, f"MINICNN_TILE_UNIT is {wanted}")
    has_tiles = {"amx_tile", "amx_bf16"} <= set(features)
    if has_tiles and _may_use_tiles():
        return TileUnit("native", "the processor has one and the operating system lets it be used")
    lacks = "the operating system does not let AMX be used" if has_tiles else "the processor has no AMX"
    if has_vectors:
        return TileUnit("vector", lacks)
    return TileUnit("none", f"{lacks}, and there is no AVX512-BF16")


def _may_use_tiles() -> bool:
    """Whether the operating system grants AMX to a process that asks for it; this does not ask for it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    supported = ctypes.c_uint64(0)
    libc = ctypes.CDLL(None)
    refused = libc.syscall(_ARCH_PRCTL, _GET_SUPPORTED, ctypes.byref(supported))
    return refused == 0 and bool(supported.value >> _TILE_DATA & 1)
