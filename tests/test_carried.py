"""The modules that a wheel carries: which level is chosen, what is refused and what is said of it."""

from __future__ import annotations

import logging
import platform
import subprocess
import zipfile
from pathlib import Path

import pytest
import tiny_module

from minicnn.app.commands import doctor
from minicnn.backends import build, carried, compiler, levels, module_file, tile_unit, torch_package
from minicnn.backends.levels import LEVELS, Level
from scripts import wheels

BEST, V4, V3, V2 = LEVELS


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as a wheel installs it, on a processor that has all levels; returns its folder."""
    monkeypatch.delenv("MINICNN_CPU_LEVEL", raising=False)
    monkeypatch.delenv("MINICNN_TILE_UNIT", raising=False)
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setattr(compiler, "cpu_features", lambda: sorted(BEST.features))
    for level in LEVELS:
        carry(level)
    return tmp_path / "minicnn"


def carry(level: Level, **about: object) -> None:
    path = carried.place(level)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x7fELF" + level.name.encode())
    built_from = module_file.description(module_file.cpu_spec(lambda: level))
    module_file.stamp(path, {**built_from, "compiler": "another", **about})


# ---- which one is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "taken", "why"),
    [
        (("amx_tile", *BEST.features), BEST, "the best that it carries"),
        (V4.features, V4, "this CPU lacks avx512_bf16 of x86-64-v4-bf16"),
        ((*V3.features, "avx512f"), V3, "lacks avx512bw, avx512cd, avx512dq, avx512vl of x86-64-v4"),
        (set(V3.features) - {"fma"}, V2, "this CPU lacks fma of x86-64-v3"),
        (set(V2.features) - {"popcnt"}, None, "this CPU lacks popcnt of x86-64-v2"),
        ((), None, "of x86-64-v2"),
    ],
)
def test_the_best_that_the_processor_has_is_taken(
    features: tuple[str, ...], taken: Level | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "cpu_features", lambda: sorted(features))
    found = carried.chosen()
    assert found.level == taken
    assert found.why.endswith(why)
    assert build.find_module()[0] == (None if taken is None else carried.place(taken))


def test_another_level_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CPU_LEVEL", "x86-64-v3")
    assert carried.chosen() == (carried.place(V3), V3, "MINICNN_CPU_LEVEL is x86-64-v3")
    carried.place(V3).unlink()
    assert carried.chosen() == (None, None, "MINICNN_CPU_LEVEL is x86-64-v3")
    assert build.cached_path() == build.cached_path(module_file.cpu_spec(lambda: V3))
    monkeypatch.setenv("MINICNN_CPU_LEVEL", "native")
    assert carried.chosen() == (None, None, "MINICNN_CPU_LEVEL is native")
    native = build.cached_path()
    monkeypatch.setenv("MINICNN_CPU_LEVEL", "v3")
    told = build.missing()
    assert told == (
        "MINICNN_CPU_LEVEL: expected one of native, x86-64-v4-bf16, x86-64-v4, x86-64-v3, x86-64-v2, "
        "got 'v3'"
    )
    assert doctor._bfloat16().remedy == told
    monkeypatch.delenv("MINICNN_CPU_LEVEL")
    assert build.cached_path() == native


def test_a_level_that_the_processor_lacks_is_neither_taken_nor_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "cpu_features", lambda: sorted(V3.features))
    monkeypatch.setenv("MINICNN_CPU_LEVEL", "x86-64-v4")
    lacks = "this CPU lacks avx512bw, avx512cd, avx512dq, avx512f, avx512vl of x86-64-v4"
    assert build.missing() == f"no module of the wheel is used: {lacks}; and none can be built: {lacks}"


def test_bfloat16_goes_by_what_the_module_was_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tile_unit.chosen().kind == "vector"
    carried.place(BEST).unlink()
    assert tile_unit.chosen().kind == "none"
    monkeypatch.setenv("MINICNN_TILE_UNIT", "vector")
    with pytest.raises(ValueError, match="MINICNN_TILE_UNIT"):
        tile_unit.chosen()


# ---- what is refused -----------------------------------------------------------------------------------


def installed(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_package, "version", lambda: version)


def test_other_builds_of_the_same_torch_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    carry(BEST, torch="2.14.1+cu130")
    for version in ("2.14.1", "2.14.1+cpu", "2.14.1+cu126"):
        installed(version, monkeypatch)
        assert carried.chosen().level == BEST
    for version in ("2.14.1+git1234", "2.14.1+rocm6.4", "2.14.0+cu130"):
        installed(version, monkeypatch)
        assert carried.chosen().path is None


def test_another_torch_is_refused_and_the_module_built(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minicnn")
    carry(BEST, torch="2.10.0+cpu")
    installed("2.14.1+cu130", monkeypatch)
    monkeypatch.setattr(build, "_compile", tiny_module.compile_nothing)
    monkeypatch.setattr(build, "_import", lambda path, _spec: path)
    why = "it was built for torch 2.10.0, here is 2.14.1; pip install torch==2.10.0"
    assert build.load() == build.cached_path()
    assert f"not using a module of the wheel: {why}" in caplog.text
    assert doctor._module("cpp module", build.CPU).found == (
        f"{build.cached_path()}, built here; no module of the wheel is used: {why}"
    )


def test_without_a_compiler_both_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "command", lambda: None)
    assert build.missing() is None
    carry(BEST, torch="2.10.0")
    told = build.missing()
    assert told is not None
    assert "pip install torch==2.10.0; and none can be built: no C++ compiler" in told
    assert "apt install g++" in told


@pytest.mark.parametrize("key", ["sources", "python", "machine"])
def test_what_was_built_for_something_else_is_refused(key: str) -> None:
    carry(BEST, **{key: "another"})
    path, (reason,) = build.find_module()
    assert path is None
    assert "another" in reason
    assert "torch" not in reason


def test_a_damaged_module_is_refused(package: Path) -> None:
    path = package / "carried" / "_cpu.x86-64-v4-bf16.so"
    path.write_bytes(path.read_bytes().replace(b"ELF", b"ELE"))
    assert carried.chosen().why == "it is not whole, or does not say what it was built from"


def test_the_doctor_says_which_one_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "cpu_features", lambda: sorted(V4.features))
    assert doctor._module("cpp module", build.CPU) == (
        "cpp module",
        f"{carried.place(V4)}, the wheel's for x86-64-v4: this CPU lacks avx512_bf16 of x86-64-v4-bf16",
        "",
    )


# ---- how they are made ---------------------------------------------------------------------------------

UNLISTED = {
    "CRC32", "CX16", "FXSR", "LAHF_SAHF", "MMX", "MMX_WITH_SSE", "SSE", "SSE2", "SSE2_MATH", "SSE3",
    "SSE_MATH", "XSAVE", "EVEX256", "EVEX512", "GCC_HAVE_SYNC_COMPARE_AND_SWAP_16",
}  # fmt: skip
"""Macros of what each processor has that has the features of a level, and of the compiler's own."""


@pytest.mark.skipif(platform.machine() != "x86_64" or compiler.missing() is not None, reason="x86-64 only")
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_the_compiler_uses_what_a_level_asks_for_and_nothing_else(level: Level) -> None:
    words = compiler.command()
    assert words is not None
    flags = module_file.cpu_spec(lambda: level).load_options()["extra_cflags"]
    marches = [flag for flag in flags if flag.startswith("-m")]

    def macros(*options: str) -> set[str]:
        command = [*words, *options, *compiler.PRINT_MACROS]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {line.split()[1].strip("_") for line in said.splitlines() if line.endswith("__ 1")}

    names = {"abm": "LZCNT", "avx512_bf16": "AVX512BF16"}
    asked = {names.get(feature, feature.upper().replace("BMI1", "BMI")) for feature in level.features}
    used = {name for name in macros(*marches) - macros() if name.isupper()}
    assert used - UNLISTED <= asked
    assert asked <= macros(*marches)


def test_native_is_the_default_and_the_flags_as_before() -> None:
    native = module_file.CPU.load_options()["extra_cflags"]
    assert native == compiler.flags() == compiler.flags(levels.native().flags)
    assert ("-march=native" in native) == (platform.machine() != "aarch64")
    assert "level" not in module_file.description()


# ---- the wheel -----------------------------------------------------------------------------------------


def test_the_metadata_say_what_the_modules_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("2.14.1+cu130", monkeypatch)
    info = tmp_path / "minicnn-0.1.0.dist-info"
    info.mkdir()
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    lines = 'Requires-Dist: numpy<3,>=1.26\nRequires-Dist: torch<3,>=2.10; extra == "torch"\n'
    other = 'Requires-Dist: torchvision<1,>=0.21; extra == "datasets"\n'
    (info / "METADATA").write_text(lines + other)
    wheels.describe(tmp_path)
    assert "Root-Is-Purelib: false\nTag: cp3" in (info / "WHEEL").read_text()
    assert "-linux_x86_64\n" in (info / "WHEEL").read_text()
    changed = lines.replace("torch<3,>=2.10;", "torch==2.14.1 ;")
    assert (info / "METADATA").read_text() == changed + other
    with pytest.raises(SystemExit, match="expected one line"):
        wheels.describe(tmp_path)


def test_a_module_that_was_changed_on_the_way_is_noticed(tmp_path: Path) -> None:
    modules = {level: carried.place(level) for level in LEVELS}
    path = tmp_path / "minicnn.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for level, module in modules.items():
            wheels.add_module(tmp_path / "unpacked", level, module)
            archive.write(module, module.relative_to(module_file.PACKAGE.parent))
    wheels.check_carried(path, modules)
    assert (tmp_path / "unpacked" / "minicnn" / "carried" / "_cpu.x86-64-v2.so").exists()
    with modules[V3].open("ab") as file:
        file.write(b"patched")
    with pytest.raises(SystemExit, match=r"_cpu\.x86-64-v3\.so is not as it was built"):
        wheels.check_carried(path, modules)
