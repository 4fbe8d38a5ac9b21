"""Finds, builds and loads the compiled modules; what is special to CUDA is in cuda_build.py.

``pip install --no-build-isolation .`` builds a module ahead of time (setup.py).  Otherwise it is built on
first use, into a cache.  A module file ends with a description of what it was built from and for.  If that
does not fit this checkout, torch, Python, compiler or CPU, the file is not loaded but built again.

setup.py loads this file on its own, so it imports nothing of minicnn, and torch only inside functions.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
INSTALL_TORCH = "pip install torch ninja setuptools"
INSTALL_COMPILER = "apt install g++ (or name yours in CXX)"
INSTALL_NINJA = "pip install ninja"

_log = logging.getLogger("minicnn.backends.build")  # also where setup.py loads this file on its own
_MARK = b"\nminicnn-build:"
_CPU_FEATURE = re.compile(
    r"(sse|ssse|avx|amx|fma|f16c|bmi|abm|popcnt|movbe|adx|gfni|vaes|vpclmul|pclmul|aes|sha_ni|rdseed|xop|sve|asimd)"
)


class BuildError(RuntimeError):
    """The module can be neither loaded nor built; the message says why and how to fix it."""


# ---- what there is ---------------------------------------------------------------------------------


def source_folder() -> Path:
    """csrc: inside an installed package, or beside the package in a checkout."""
    for folder in (PACKAGE / "csrc", PACKAGE.parent / "csrc"):
        if (folder / "cpu" / "module.cpp").exists():
            return folder
    raise BuildError(f"no C++ sources at {PACKAGE / 'csrc'}; reinstall minicnn")


def sources() -> list[Path]:
    """The translation units of the CPU module."""
    return sorted((source_folder() / "cpu").rglob("*.cpp"))


def torch_version() -> str | None:
    """The installed torch's version, without importing it; None if there is none."""
    if importlib.util.find_spec("torch") is None:
        return None
    return importlib.metadata.version("torch")


def compiler() -> str | None:
    """The path of the C++ compiler that torch's build uses: CXX or c++.  None if it is not installed."""
    words = os.environ.get("CXX", "").split()
    return shutil.which(words[0] if words else "c++")


@cache
def compiler_version() -> str | None:
    """The first line that the compiler prints for --version; None if there is no compiler."""
    path = compiler()
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def ninja() -> Path | None:
    """The ninja program: on PATH, or beside this Python.  None if there is none."""
    found = shutil.which(
        "ninja", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    )
    return None if found is None else Path(found)


@cache
def cpu_features() -> list[str]:
    """The CPU's instruction sets; empty if the operating system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return sorted(filter(_CPU_FEATURE.match, line.group(1).split())) if line else []


def cache_folder() -> Path:
    """Where modules built on first use are kept: MINICNN_CACHE, or the user's cache."""
    if "MINICNN_CACHE" in os.environ:
        return Path(os.environ["MINICNN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "minicnn"


def compile_flags() -> list[str]:
    """The compiler's flags: it may use all of this CPU's instructions, and keeps NaN and infinity."""
    flags = [
        "-O3", "-g0", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wextra",
        "-Wno-missing-field-initializers",  # pybind11's module macro would raise it
        "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    ]  # fmt: skip
    if cpu_features():
        flags.append("-mcpu=native" if platform.machine() == "aarch64" else "-march=native")
    return [*flags, *WERROR]


LINK_FLAGS = ["-fopenmp"]
WERROR = ["-Werror"] if os.environ.get("MINICNN_WERROR") == "1" else []


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


CPU = ModuleSpec(
    label="cpp backend",
    stem="_cpu",
    folders=("cpu",),
    sources=sources,
    about=lambda: {"cpu": cpu_features()},
    missing=lambda: None,
    load_options=lambda: {"extra_cflags": compile_flags(), "extra_ldflags": LINK_FLAGS},
)


def missing(spec: ModuleSpec = CPU) -> str | None:
    """Why the module can be neither loaded nor built here, and how to fix it; None if it can."""
    if torch_version() is None:
        return f"torch is not installed; install it with: {INSTALL_TORCH}"
    if find_module(spec)[0] is not None:
        return None
    if compiler() is None:
        return f"no C++ compiler; install one with: {INSTALL_COMPILER}"
    if ninja() is None:
        return f"ninja is not installed; install it with: {INSTALL_NINJA}"
    return spec.missing()


# ---- what a module is built from and for -------------------------------------------------------------


def source_hash(spec: ModuleSpec = CPU) -> str:
    """A hash of all files that the module is made of: their names and contents."""
    folder = source_folder()
    digest = hashlib.sha256()
    shared = [*folder.glob("*.h"), *(folder / "host").glob("*.h")]
    own = [file for name in spec.folders for file in (folder / name).rglob("*.*") if file.suffix != ".md"]
    for path in sorted([*shared, *own]):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def description(spec: ModuleSpec = CPU) -> dict[str, Any]:
    """What a module that is built now would be built from and for."""
    return {
        "sources": source_hash(spec),
        "torch": torch_version(),
        "python": sysconfig.get_config_var("SOABI"),
        "compiler": compiler_version(),
        "machine": platform.machine(),
        **spec.about(),
    }


def parallel_jobs() -> int:
    """How many compiler processes run at once: one for each core, if each has 2 GiB of memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory >> 31))


def stamp(path: Path, about: dict[str, Any]) -> None:
    """Append to a module file its description, taken before the build; loaders do not look there."""
    with path.open("ab") as file:
        file.write(_MARK + json.dumps(about).encode())


def built_for(path: Path) -> dict[str, Any] | None:
    """The description at the end of a module file, read without loading it; None if there is none."""
    _, mark, text = path.read_bytes().rpartition(_MARK)
    about: dict[str, Any] | None = json.loads(text) if mark else None
    return about


def misfit(path: Path, spec: ModuleSpec = CPU) -> str | None:
    """Why this module file must not be loaded here, or None if it fits."""
    about, here = built_for(path), description(spec)
    if about is None:
        return "it does not say what it was built from"
    for key, what in {
        "sources": "other sources",
        "torch": "torch",
        "python": "Python",
        "machine": "machine",
        "cuda": "CUDA",
    }.items():
        if about.get(key) != here.get(key):
            return f"it was built for {what} {about.get(key)}, here is {here.get(key)}"
    if here["compiler"] is not None and about["compiler"] != here["compiler"]:
        return f"it was built by {about['compiler']}, here is {here['compiler']}"
    lacking = sorted(set(about.get("cpu", [])) - set(here.get("cpu", [])))
    if lacking:
        return f"it was built for a CPU with {', '.join(lacking)}, which this one lacks"
    return None


# ---- finding, building, loading ----------------------------------------------------------------------


def find_module(spec: ModuleSpec = CPU) -> tuple[Path | None, list[str]]:
    """The module file that fits, or None; and for each file that does not fit, why."""
    reasons: list[str] = []
    for path in [*sorted(PACKAGE.glob(f"{spec.stem}.*so")), cached_path(spec)]:
        if path.exists():
            reason = misfit(path, spec)
            if reason is None:
                return path, reasons
            reasons.append(f"{path}: {reason}")
    return None, reasons


def cached_path(spec: ModuleSpec = CPU) -> Path:
    """Where the cache keeps the module, in a folder named by a hash of its description."""
    key = hashlib.sha256(json.dumps(description(spec), sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / key / f"{spec.stem}.so"


def load(spec: ModuleSpec = CPU) -> ModuleType:
    """The compiled module, built first if no file fits.  Raises BuildError."""
    reason = missing(spec)
    if reason is not None:
        raise BuildError(reason)
    path, reasons = find_module(spec)
    if path is None:
        for reason in reasons:
            _say(f"not using {reason}")
        path = _build(spec)
    return _import(path, spec)


def _import(path: Path, spec: ModuleSpec) -> ModuleType:
    try:
        import torch  # noqa: F401  its libraries must be loaded before the module that links to them
    except (ImportError, OSError) as error:
        raise BuildError(
            f"torch cannot be imported ({error}); install it anew with: {INSTALL_TORCH}"
        ) from error

    found = importlib.util.spec_from_file_location(f"minicnn.{spec.stem}", path)
    assert found is not None
    assert found.loader is not None
    try:
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    except ImportError as error:
        raise BuildError(f"{path} cannot be loaded ({error}); remove it, and it is built again") from error
    return module


def _build(spec: ModuleSpec) -> Path:
    target = cached_path(spec)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"cannot write to {target.parent} ({error}); set MINICNN_CACHE to a folder"
        ) from error
    with _lock(target.parent / "lock"):
        if not target.exists():  # another process may have built it while this one waited for the lock
            folder = target.parent / "build"
            about = description(spec)
            built = _compile(folder, spec)
            stamp(built, about)
            built.replace(target)
            shutil.rmtree(folder)
    return target


def _compile(folder: Path, spec: ModuleSpec) -> Path:
    """Build a module file in the folder, and show the progress on stderr."""
    from torch.utils import cpp_extension

    shutil.rmtree(folder, ignore_errors=True)  # what a build that was killed left there
    folder.mkdir()
    files = spec.sources()
    start = time.monotonic()
    _say(f"building the {spec.label}, once, into {folder.parent} ...")
    done = threading.Event()
    teller = threading.Thread(target=_tell_progress, args=(folder, len(files), start, done), daemon=True)
    teller.start()
    try:
        with _environment(
            PATH=f"{os.environ.get('PATH', '')}{os.pathsep}{_ninja_folder()}", MAX_JOBS=_jobs()
        ):
            built = cpp_extension.load(
                name=spec.stem,
                sources=[str(path) for path in files],
                build_directory=str(folder),
                is_python_module=False,
                **spec.load_options(),
            )
    except RuntimeError as error:
        log = folder.parent / "build.log"
        log.write_text(str(error))
        lines = [line for line in str(error).splitlines() if "error" in line.lower()]
        raise BuildError(
            "\n".join([f"the {spec.label} does not compile:", *lines[1:9], f"all of it: {log}"])
        ) from None
    finally:
        done.set()
        teller.join()
    _say(f"built the {spec.label} in {time.monotonic() - start:.0f} s")
    return Path(built)


def _ninja_folder() -> Path:
    path = ninja()
    assert path is not None  # load() has asked missing()
    return path.parent


def _jobs() -> str:
    return os.environ.get("MAX_JOBS", str(parallel_jobs()))


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for the build's processes, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tell_progress(folder: Path, files: int, start: float, done: threading.Event) -> None:
    told = 0
    while not done.wait(1.0):
        compiled = len(list(folder.glob("*.o")))
        if compiled > told:
            told = compiled
            _say(f"  compiled {compiled} of {files} files, {time.monotonic() - start:.0f} s")


@contextmanager
def _lock(path: Path, timeout: float = 600.0) -> Iterator[None]:
    """Hold a lock on the file; the system frees it when its holder ends, even if it crashes."""
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    _say(f"waiting for another process that is building ({path})")
                waited = True
            if time.monotonic() > deadline:
                raise BuildError(
                    f"another process has held {path} for {timeout:.0f} s; end it and try again"
                )
            time.sleep(0.2)
        yield


def _say(text: str) -> None:
    _log.info("%s", text)
