"""Builds the kernels of csrc/cpu as the live page's WebAssembly module, or checks that it is up to date.

    python scripts/site/wasm.py            builds docs/live/kernels.wasm; it needs emscripten (em++)
    python scripts/site/wasm.py --check    fails if a source has changed since the module was built

The module is kept with the sources, so that the site can be built without emscripten.
docs/live/kernels.json holds the hashes of the module and of every source that it was made of.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ROOT / "docs" / "live" / "kernels.wasm"
RECORD = MODULE.with_suffix(".json")
BUILD = ROOT / "build" / "wasm"
LEFT_OUT = ("module.cpp", "session", "bfloat16")
"""What a page has no use for: the module for Python, sessions, and bfloat16."""
COMPILE = (
    "-std=c++17",
    "-O3",
    "-msimd128",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
)
LINK = (
    "-O3", "-msimd128", "--no-entry", "-sSTANDALONE_WASM=1", "-sALLOW_MEMORY_GROWTH=1",
    "-sINITIAL_MEMORY=33554432", "-Wl,--gc-sections",
)  # fmt: skip


def sources() -> list[Path]:
    """The files that are compiled, relative to the root."""
    kernels = [path.relative_to(ROOT) for path in sorted((ROOT / "csrc" / "cpu").rglob("*.cpp"))]
    return [Path("csrc/web/exports.cpp"), *(path for path in kernels if not {*path.parts} & {*LEFT_OUT})]


def compile_one(source: Path) -> tuple[Path, set[str]]:
    """The object file of a source, and every file of ours that it includes."""
    made = BUILD / "_".join(source.with_suffix(".o").parts)
    subprocess.run(["em++", *COMPILE, "-MMD", "-c", str(source), "-o", str(made)], check=True, cwd=ROOT)
    named = re.findall(r"[^\s\\]+", made.with_suffix(".d").read_text().partition(":")[2])
    ours = {(ROOT / name).resolve() for name in named if not Path(name).is_absolute()}
    return made, {str(path.relative_to(ROOT)) for path in ours if path.is_relative_to(ROOT)}


def build() -> None:
    """Compile, link, and write the module and its record."""
    if shutil.which("em++") is None:
        raise SystemExit("no em++: install emscripten, on Debian with: apt-get install emscripten")
    BUILD.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        compiled = list(pool.map(compile_one, sources()))
    linked = BUILD / MODULE.name
    objects = [str(made) for made, _ in compiled]
    subprocess.run(["em++", *LINK, *objects, "-o", str(linked)], check=True, cwd=ROOT)
    used = sorted(set().union(*(included for _, included in compiled)))
    record = {"module": digest(linked), "sources": {name: digest(ROOT / name) for name in used}}
    MODULE.write_bytes(linked.read_bytes())
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {MODULE.relative_to(ROOT)}, {MODULE.stat().st_size / 1000:.0f} kB")


def outdated() -> list[str]:
    """The sources that have changed since the module was built, and the module itself if it is another."""
    record = json.loads(RECORD.read_text())
    recorded = {str(MODULE.relative_to(ROOT)): record["module"], **record["sources"]}
    missing = {str(path) for path in sources()} - set(recorded)
    changed = {
        name
        for name, hash_ in recorded.items()
        if not (ROOT / name).exists() or digest(ROOT / name) != hash_
    }
    return sorted(missing | changed)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="build nothing; fail if the module is out of date"
    )
    if not parser.parse_args().check:
        build()
    elif changed := outdated():
        sys.exit(f"docs/live/kernels.wasm is older than {', '.join(changed)}; run: python {sys.argv[0]}")
