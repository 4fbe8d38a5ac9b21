"""Finds, builds and loads the compiled modules.

``pip install --no-build-isolation .`` builds a module ahead of time (setup.py).  Otherwise it is built on
first use, into the cache (module_cache.py).  A wheel may carry modules (carried.py).  Only a file that
fits is loaded (module_file.py); what does not fit is built again.  compiler.py knows the C++ compiler,
cuda_build.py what is special to CUDA.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from . import carried, compiler, module_cache, module_file, torch_package
from .module_cache import say
from .module_file import CPU, BuildError, ModuleSpec

__all__ = [
    "CPU", "BuildError", "ModuleSpec",
    "build_for", "cached_path", "features", "find_module", "load", "missing",
]  # fmt: skip

LOG, FAILED = "build.log", "failed.json"
ENVIRONMENT = (
    "CXX", "CC", "PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH",
    "COMPILER_PATH", "GCC_EXEC_PREFIX", "MAX_JOBS", "MINICNN_WERROR", "CUDA_HOME", "CUDA_PATH",
    "TORCH_CUDA_ARCH_LIST", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "PYTORCH_NVCC",
)  # fmt: skip
"""The environment variables that can decide whether a build succeeds."""
PASSING = ("No space left on device", "Killed", "Cannot allocate memory", "out of memory")
"""What the output has of failures that need not come again, so that they are not remembered."""


def missing(spec: ModuleSpec = CPU) -> str | None:
    """Why the module can be neither loaded nor built here, and how to fix it; None if it can."""
    if os.name != "posix":
        return "compiled modules need Linux or another POSIX system; take the numpy backend, or WSL"
    reason = torch_package.missing()
    if reason is not None:
        return reason
    try:
        if find_module(spec)[0] is not None:
            return None
        reason = _cannot_build() or spec.missing() or _cannot_keep(spec) or _failed_before(spec)
        refused = carried.refusal() if spec is CPU and reason else None
        return f"{refused}; and none can be built: {reason}" if refused else reason
    except BuildError as error:
        return str(error)


def _cannot_build() -> str | None:
    reason = compiler.missing()
    if reason is None and compiler.ninja() is None:
        return f"ninja is not installed; install it with: {compiler.INSTALL_NINJA}"
    return reason


def _cannot_keep(spec: ModuleSpec) -> str | None:
    return module_cache.refusal(cached_path(spec).parent)


# ---- finding ---------------------------------------------------------------------------------------


def find_module(spec: ModuleSpec = CPU) -> tuple[Path | None, list[str]]:
    """The module file that fits, or None; and for each file that does not fit, why.

    Raises: BuildError if there are no sources to compare it with
    """
    module_file.source_folder()
    reasons: list[str] = []
    for path in sorted(module_file.PACKAGE.glob(f"{spec.stem}.*so")):
        reason = _misfit(path, spec)
        if reason is None:
            return path, reasons
        reasons.append(reason)
    if spec is CPU:
        found = carried.chosen()
        if found.path is not None:
            return found.path, reasons
        if found.why:
            reasons.append(f"a module of the wheel: {found.why}")
    try:
        path = cached_path(spec)
        reason = _misfit(path, spec, cached=True)
    except FileNotFoundError:
        return None, reasons
    except BuildError as error:
        reason = str(error)
    return (path, reasons) if reason is None else (None, [*reasons, reason])


def features() -> list[str]:
    """The CPU's instruction sets that the module which fits may use, or the one that would be built."""
    return sorted((carried.chosen().level or module_file.wanted_level()).features)


def _misfit(path: Path, spec: ModuleSpec, *, cached: bool = False) -> str | None:
    """The file and why it must not be loaded here, or None if it fits.

    Raises: for a file of the cache, what `module_cache.read` raises
    """
    try:
        content = module_cache.read(path) if cached else path.read_bytes()
    except OSError as error:
        if cached:
            raise
        return f"{path}: {error.strerror}"
    reason = module_file.misfit(content, spec)
    return None if reason is None else f"{path}: {reason}"


def cached_path(spec: ModuleSpec = CPU) -> Path:
    """Where the cache keeps the module, in a folder named by a hash of its description.

    Raises: BuildError if there is no cache
    """
    about = json.dumps(module_file.description(spec), sort_keys=True)
    return module_cache.root() / hashlib.sha256(about.encode()).hexdigest()[:16] / f"{spec.stem}.so"


# ---- loading ---------------------------------------------------------------------------------------


def load(spec: ModuleSpec = CPU) -> ModuleType:
    """The compiled module, built first if no file fits.  Raises BuildError."""
    reason = missing(spec)
    if reason is not None:
        raise BuildError(reason)
    path, reasons = find_module(spec)
    if path is None:
        for reason in reasons:
            say(f"not using {reason}")
        path = build_for(spec)
    return _import(path, spec)


def _import(path: Path, spec: ModuleSpec) -> ModuleType:
    try:
        import torch  # noqa: F401  its libraries must be loaded before the module that links to them
    except (ImportError, OSError) as error:
        raise BuildError(
            f"torch cannot be imported ({error}); install it anew with: {torch_package.INSTALL}"
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


# ---- building --------------------------------------------------------------------------------------


def build_for(spec: ModuleSpec) -> Path:
    """The module in the cache, built if it is not there.  Raises BuildError."""
    target = cached_path(spec)
    module_cache.prepare(target.parent)
    with module_cache.locked(target.parent):
        path, _ = find_module(spec)  # another process may have built it while this one waited for the lock
        if path is not None:
            return path
        try:
            _build_aside(target, spec)
        except OSError as error:
            raise BuildError(
                f"cannot build the {spec.label} in {target.parent}: {error.strerror or error}; "
                f"put that right, or {module_cache.REMEDY}"
            ) from error
    return target


def _build_aside(target: Path, spec: ModuleSpec) -> None:
    """Build in a folder beside the target, and put the module in its place when it is whole.

    Raises: BuildError if it does not compile, which is remembered; OSError
    """
    for remains in target.parent.glob("build-*"):  # of a build that was killed
        shutil.rmtree(remains)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    try:
        about = module_file.description(spec)
        built = _compile(folder, spec)
        module_file.stamp(built, about)
        module_cache.keep(built, target)
        for name in (LOG, FAILED):
            target.with_name(name).unlink(missing_ok=True)
    except BuildError:
        raise
    except RuntimeError as error:
        raise _does_not_compile(str(error), target.parent, spec) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(folder: Path, spec: ModuleSpec) -> Path:
    """Build a module file in the folder, and show the progress on stderr.  Raises RuntimeError, OSError."""
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        raise BuildError(
            f"torch cannot build ({error}); install what it needs with: {torch_package.INSTALL}"
        ) from error

    files = spec.sources()
    start = time.monotonic()
    say(f"building the {spec.label}, once, into {folder.parent} ...")
    done = threading.Event()
    teller = threading.Thread(target=_tell_progress, args=(folder, len(files), start, done), daemon=True)
    teller.start()
    try:
        with _environment(
            CXX=compiler.one_word(folder),
            PATH=f"{os.environ.get('PATH', '')}{os.pathsep}{_ninja_folder()}",
            MAX_JOBS=os.environ.get("MAX_JOBS", str(compiler.parallel_jobs())),
        ):
            built = cpp_extension.load(
                name=spec.stem,
                sources=[str(path) for path in files],
                build_directory=str(folder),
                is_python_module=False,
                **spec.load_options(),
            )
    finally:
        done.set()
        teller.join()
    say(f"built the {spec.label} in {time.monotonic() - start:.0f} s")
    return Path(built)


def _ninja_folder() -> Path:
    path = compiler.ninja()
    assert path is not None  # load() has asked missing()
    return path.parent


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Set environment variables for the build's processes, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _tell_progress(folder: Path, files: int, start: float, done: threading.Event) -> None:
    told = 0
    while not done.wait(1.0):
        compiled = len(list(folder.glob("*.o")))
        if compiled > told:
            told = compiled
            say(f"  compiled {compiled} of {files} files, {time.monotonic() - start:.0f} s")


# ---- builds that failed ----------------------------------------------------------------------------


def _does_not_compile(output: str, folder: Path, spec: ModuleSpec) -> BuildError:
    """The error of a build that failed with this output, which is kept in the folder and remembered."""
    lines = [line for line in output.splitlines() if "error" in line.lower()]
    reason = "\n".join([f"the {spec.label} does not compile:", *lines[1:9]])
    try:
        module_cache.write(folder / LOG, output)
        if not any(text in output for text in PASSING):
            note = {"environment": _environment_hash(), "reason": reason}
            module_cache.write(folder / FAILED, json.dumps(note))
    except OSError as error:
        return BuildError(f"{reason}\nall of it cannot be kept in {folder}: {error.strerror}")
    return BuildError(f"{reason}\nall of it: {folder / LOG}")


def _failed_before(spec: ModuleSpec) -> str | None:
    """What came of an earlier build, if it failed and nothing that could matter has changed since."""
    note = cached_path(spec).with_name(FAILED)
    try:
        found = json.loads(module_cache.read(note))
        if found["environment"] != _environment_hash():
            return None
        return f"{found['reason']}\nall of it: {note.with_name(LOG)}; to build again, remove {note}"
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _environment_hash() -> str:
    values = {name: os.environ.get(name) for name in ENVIRONMENT}
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
