"""The modules that a wheel carries: the CPU's kernels, compiled for several levels of x86-64.

`make wheels` puts them into the package.  Of those that this processor can run the best one is taken, if
it was built from this package's sources, for this Python and this release of torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from . import module_file, torch_package
from .levels import LEVELS, Level
from .module_file import LEVEL_VARIABLE, BuildError

FOLDER = "carried"


class Carried(NamedTuple):
    """The carried module that is used and its level, or None; and why, empty if none is carried."""

    path: Path | None
    level: Level | None
    why: str


def place(level: Level) -> Path:
    """Where a wheel has the module for a level."""
    return module_file.PACKAGE / FOLDER / f"{module_file.CPU.stem}.{level.name}.so"


def chosen() -> Carried:
    """The carried module for this processor, Python and torch; MINICNN_CPU_LEVEL names another level.

    Raises: BuildError if MINICNN_CPU_LEVEL is no level, or if there are no sources to compare with
    """
    there = [level for level in LEVELS if place(level).exists()]
    if not there:
        return Carried(None, None, "")
    asked = os.environ.get(LEVEL_VARIABLE)
    if asked:
        wanted = module_file.wanted_level()
        there = [level for level in there if level == wanted]
    level = next((level for level in there if not level.lacking()), None)
    if level is None:
        lacking = there[-1].missing() if there else None
        return Carried(None, None, lacking or f"{LEVEL_VARIABLE} is {asked}")
    reason = _misfit(level)
    if reason is not None:
        return Carried(None, None, reason)
    better = there[: there.index(level)]
    lacking = better[-1].missing() if better else None
    preferred = f"{LEVEL_VARIABLE} is {asked}" if asked else "the best that it carries"
    return Carried(place(level), level, lacking or preferred)


def refusal() -> str | None:
    """Why no carried module is used although the package has some; None if one is, or if it has none."""
    try:
        found = chosen()
    except BuildError as error:
        return str(error)
    return f"no module of the wheel is used: {found.why}" if found.path is None and found.why else None


def _misfit(level: Level) -> str | None:
    """Why the module for a level cannot be used, and what would help; None if it can."""
    try:
        content = place(level).read_bytes()
    except OSError as error:
        return f"{place(level)} cannot be read: {error.strerror}"
    reason = module_file.misfit(content, module_file.cpu_spec(lambda: level), carried=True)
    release = torch_package.release((module_file.built_for(content) or {}).get("torch"))
    if reason is None or release in (None, torch_package.release(torch_package.version())):
        return reason
    return f"{reason}; pip install torch=={release}"
