"""The file of a compiled module: what it is made of, and the description that stands at its end.

The description says what the module was built from and for, and a hash shows whether file and description
are whole.  A file that is not, or that does not fit this checkout, torch, Python, compiler or CPU, is not
loaded.

setup.py loads this file on its own, so it imports nothing of minicnn.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import compiler, levels, torch_package
from .levels import Level

PACKAGE = Path(__file__).resolve().parent.parent
_MARK = b"\nminicnn-build:"
LEVEL_VARIABLE = "MINICNN_CPU_LEVEL"
"""Names the level of x86-64 for which the CPU's kernels are compiled, or ``native``: for this processor."""


class BuildError(RuntimeError):
    """The module can be neither loaded nor built; the message says why and how to fix it."""


def source_folder() -> Path:
    """csrc: inside an installed package, or beside the package in a checkout."""
    for folder in (PACKAGE / "csrc", PACKAGE.parent / "csrc"):
        if (folder / "cpu" / "module.cpp").exists():
            return folder
    raise BuildError(f"no C++ sources at {PACKAGE / 'csrc'}; reinstall minicnn")


def sources() -> list[Path]:
    """The translation units of the CPU module."""
    return sorted((source_folder() / "cpu").rglob("*.cpp"))


@dataclass(frozen=True)
class ModuleSpec:
    """How one compiled module is made: the CPU's, the GPU's, or the GPU's emulated on the CPU."""

    label: str  # what messages call it
    stem: str  # its file name without the suffix
    folders: tuple[str, ...]  # folders of csrc that it is built from, besides those that all share
    sources: Callable[[], list[Path]]  # its translation units
    about: Callable[[], dict[str, Any]]  # what only this module's description says
    missing: Callable[[], str | None]  # what only this module needs and is missing
    load_options: Callable[[], dict[str, Any]]  # arguments for torch.utils.cpp_extension.load


def wanted_level() -> Level:
    """The level that MINICNN_CPU_LEVEL names; where it is not set, this processor.  Raises BuildError."""
    given = os.environ.get(LEVEL_VARIABLE) or levels.NATIVE
    level = levels.named(given)
    if level is None:
        names = ", ".join([levels.NATIVE, *(level.name for level in levels.LEVELS)])
        raise BuildError(f"{LEVEL_VARIABLE}: expected one of {names}, got {given!r}")
    return level


def cpu_spec(level: Callable[[], Level]) -> ModuleSpec:
    """The CPU module for a level."""
    return ModuleSpec(
        label="cpp backend",
        stem="_cpu",
        folders=("cpu",),
        sources=sources,
        about=lambda: level().about(),
        missing=lambda: level().missing(),
        load_options=lambda: {
            "extra_cflags": compiler.flags(level().flags),
            "extra_ldflags": compiler.LINK_FLAGS,
        },
    )


CPU = cpu_spec(wanted_level)


# ---- the description -------------------------------------------------------------------------------


def source_hash(spec: ModuleSpec = CPU) -> str:
    """A hash of all files that the module is made of: their names and contents.  Raises BuildError."""
    folder = source_folder()
    digest = hashlib.sha256()
    shared = [*folder.glob("*.h"), *(folder / "host").glob("*.h")]
    own = [file for name in spec.folders for file in (folder / name).rglob("*.*") if file.suffix != ".md"]
    try:
        for path in sorted([*shared, *own]):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    except OSError as error:
        raise BuildError(f"cannot read the C++ sources ({error}); reinstall minicnn") from error
    return digest.hexdigest()[:16]


def description(spec: ModuleSpec = CPU) -> dict[str, Any]:
    """What a module that is built now would be built from and for."""
    return {
        "sources": source_hash(spec),
        "torch": torch_package.version(),
        "python": sysconfig.get_config_var("SOABI"),
        "compiler": compiler.identity(),
        "machine": platform.machine(),
        **spec.about(),
    }


def stamp(path: Path, about: dict[str, Any]) -> None:
    """Append to a module file its description, taken before the build; loaders do not look there."""
    text = json.dumps({"about": about, "sha256": _hash(path.read_bytes(), about)})
    with path.open("ab") as file:
        file.write(_MARK + text.encode())


def built_for(content: bytes) -> dict[str, Any] | None:
    """The description at the end of a module file's content.

    None if there is none that can be read, or if file or description are not as they were written.
    """
    module, _, text = content.rpartition(_MARK)
    try:
        found = json.loads(text)
        about: dict[str, Any] = found["about"]
        return about if found["sha256"] == _hash(module, about) else None
    except (ValueError, KeyError, TypeError):
        return None


def _hash(module: bytes, about: dict[str, Any]) -> str:
    return hashlib.sha256(module + json.dumps(about, sort_keys=True).encode()).hexdigest()


def misfit(content: bytes, spec: ModuleSpec = CPU, *, carried: bool = False) -> str | None:
    """Why a module file of this content must not be loaded here, or None if it fits.

    carried: it came in a wheel, so that its compiler need not be this machine's, and of torch's version the
             build (``+cpu``, ``+cu130``) does not matter
    """
    about, here = built_for(content), description(spec)
    if about is None:
        return "it is not whole, or does not say what it was built from"
    if carried:
        about, here = _without_builder(about), _without_builder(here)
    for key, what in {
        "sources": "other sources",
        "torch": "torch",
        "python": "Python",
        "machine": "machine",
        "cuda": "CUDA",
    }.items():
        if about.get(key) != here.get(key):
            return f"it was built for {what} {about.get(key)}, here is {here.get(key)}"
    if here["compiler"] is not None and about.get("compiler") != here["compiler"]:
        return f"it was built by {about.get('compiler')}, here is {here['compiler']}"
    if here.get("level", about.get("level")) != about.get("level"):
        return f"it was built for {about.get('level', 'one processor')}, wanted is {here['level']}"
    lacking = sorted(set(about.get("cpu", [])) - set(compiler.cpu_features()))
    if lacking:
        return f"it was built for a CPU with {', '.join(lacking)}, which this one lacks"
    return None


def _without_builder(about: dict[str, Any]) -> dict[str, Any]:
    return {**about, "compiler": None, "torch": torch_package.release(about.get("torch"))}
