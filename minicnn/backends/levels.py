"""The levels of x86-64 for which the CPU's kernels are compiled where the processor is not known before.

They are those of the x86-64 psABI, as GCC and Clang know them, and one more with the vectors of bfloat16
that some processors of the highest level have.  https://gitlab.com/x86-psABIs/x86-64-ABI

setup.py loads this file on its own, so it imports nothing of minicnn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import compiler


class Level(NamedTuple):
    """What a processor has at least; ``features`` are the names that Linux lists in /proc/cpuinfo."""

    name: str
    features: tuple[str, ...]
    flags: tuple[str, ...]

    def about(self) -> dict[str, Any]:
        """What the description of a module for this level says of it."""
        named = {} if self.name == NATIVE else {"level": self.name}
        return {"cpu": sorted(self.features), **named}

    def missing(self) -> str | None:
        """Why a module for this level cannot run here; None if it can."""
        lacking = self.lacking()
        return f"this CPU lacks {', '.join(lacking)} of {self.name}" if lacking else None

    def lacking(self) -> list[str]:
        """Which of the features this processor lacks; all of them where the system does not list them."""
        return sorted(set(self.features) - set(compiler.cpu_features()))


_V2 = ("popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

LEVELS = (
    Level("x86-64-v4-bf16", (*_V4, "avx512_bf16"), ("-march=x86-64-v4", "-mavx512bf16")),
    Level("x86-64-v4", _V4, ("-march=x86-64-v4",)),
    Level("x86-64-v3", _V3, ("-march=x86-64-v3",)),
    Level("x86-64-v2", _V2, ("-march=x86-64-v2",)),
)
"""The best first."""


NATIVE = "native"


def native() -> Level:
    """All that this processor has."""
    return Level(NATIVE, tuple(compiler.cpu_features()), compiler.native_flags())


def named(name: str) -> Level | None:
    """The level of this name; None if there is none."""
    return native() if name == NATIVE else next((level for level in LEVELS if level.name == name), None)
