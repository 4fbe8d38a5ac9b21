"""Building the compiled module: which files are used, when it is built, and the errors if it cannot be."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_module

from minicnn.backends import (
    BackendUnavailable,
    available_backends,
    build,
    choice,
    compiler,
    get_backend,
    module_cache,
    module_file,
    torch_package,
)  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one small source, an empty cache, and nothing built; returns the source."""
    return tiny_module.make(tmp_path, monkeypatch)


@pytest.mark.usefixtures("tiny")
def test_built_on_first_use_with_progress_in_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "minicnn")
    assert build.load().answer() == 42
    assert "building the cpp backend" in caplog.text
    assert "built the cpp backend in" in caplog.text
    said = capfd.readouterr()
    assert said.out == ""
    assert "minicnn: " not in said.err  # torch may have warned of what it has not found
    caplog.clear()
    assert build.load().answer() == 42
    assert "building" not in caplog.text
    assert sorted(path.name for path in build.cached_path().parent.iterdir()) == ["_cpu.so", "lock"]


def test_built_anew_when_a_source_changes(tiny: Path) -> None:
    assert build.load().answer() == 42
    tiny.write_text(tiny_module.SOURCE.format(answer=43))
    assert build.load().answer() == 43


@pytest.mark.usefixtures("tiny")
def test_remains_of_a_killed_build_do_not_matter() -> None:
    folder = build.cached_path().parent
    module_cache.prepare(folder)
    (folder / "build-1").mkdir()
    (folder / "build-1" / "_cpu.so").write_text("half a module")
    (folder / "build-1" / "lock").touch()
    (folder / "lock").touch(0o600)
    assert build.load().answer() == 42
    assert sorted(path.name for path in folder.iterdir()) == ["_cpu.so", "lock"]


def test_sources_that_cannot_be_read_are_a_reason(tiny: Path) -> None:
    (tiny.parent / "folder.h").mkdir()
    reason = available_backends()["cpp"]
    assert reason is not None
    assert reason.startswith("cannot read the C++ sources (")
    assert reason.endswith("; reinstall minicnn")
    assert get_backend("auto").name == "numpy"


def test_compile_error_is_shown_and_leaves_no_module(tiny: Path) -> None:
    tiny.write_text("this is no C++;")
    with pytest.raises(build.BuildError, match="does not compile") as caught:
        build.load()
    assert "error:" in str(caught.value)
    assert "this" in (build.cached_path().parent / "build.log").read_text()
    assert not build.cached_path().exists()


@pytest.mark.usefixtures("tiny")
def test_unwritable_cache_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in ("file", "file/cache"):
        monkeypatch.setenv("MINICNN_CACHE", str(tmp_path / path))
        with pytest.raises(build.BuildError, match="set MINICNN_CACHE"):
            build.load()


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_live_lock_times_out_and_dead_one_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minicnn")
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(build.BuildError, match="another process has held"),
            module_cache.locked(tmp_path, timeout=0.3),
        ):
            pytest.fail("two processes hold one lock")
        holder.kill()
    assert "waiting for another process" in caplog.text
    with module_cache.locked(tmp_path, timeout=5):
        assert lock.exists()


# ---- which module files are used -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["sources", "torch", "python", "machine", "compiler"])
@pytest.mark.usefixtures("tiny")
def test_module_built_for_something_else_is_not_used(tmp_path: Path, key: str) -> None:
    other = tmp_path / "minicnn" / "_cpu.so"
    other.write_bytes(b"\x7fELF")
    module_file.stamp(other, {**module_file.description(), key: "another"})
    reason = module_file.misfit(other.read_bytes())
    assert reason is not None
    assert "another" in reason
    assert build.find_module() == (None, [f"{other}: {reason}"])


@pytest.mark.usefixtures("tiny")
def test_module_for_a_better_cpu_is_not_loaded_but_built(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minicnn")
    other = tmp_path / "minicnn" / "_cpu.so"
    other.write_bytes(b"\x7fELF")
    about = module_file.description()
    module_file.stamp(other, {**about, "cpu": [*about["cpu"], "avx9000"]})
    assert build.load().answer() == 42
    assert "built for a CPU with avx9000, which this one lacks" in caplog.text


@pytest.mark.usefixtures("tiny")
def test_module_for_a_lesser_cpu_is_used(tmp_path: Path) -> None:
    other = tmp_path / "minicnn" / "_cpu.so"
    other.write_bytes(b"\x7fELF")
    module_file.stamp(other, {**module_file.description(), "cpu": []})
    assert build.find_module() == (other, [])


def test_module_without_description_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "_cpu.so").write_bytes(b"\x7fELF")
    reason = module_file.misfit((tmp_path / "_cpu.so").read_bytes())
    assert reason == "it is not whole, or does not say what it was built from"


def test_description_is_the_last_one_written(tmp_path: Path) -> None:
    path = tmp_path / "_cpu.so"
    path.write_bytes(b"\x7fELF")
    module_file.stamp(path, {"sources": "old"})
    module_file.stamp(path, {"sources": "new"})
    assert module_file.built_for(path.read_bytes()) == {"sources": "new"}
    assert json.loads(json.dumps(module_file.description())) == module_file.description()


# ---- what is missing -----------------------------------------------------------------------------


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_package, "place", lambda: None)
    expect_unavailable("torch is not installed", "pip install torch ninja setuptools")


@pytest.mark.usefixtures("tiny")
def test_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "command", lambda: None)
    expect_unavailable("no C++ compiler", "apt install g++")


@pytest.mark.usefixtures("tiny")
def test_without_ninja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "ninja", lambda: None)
    expect_unavailable("ninja is not installed", "pip install ninja")


def expect_unavailable(reason: str, remedy: str) -> None:
    """cpp says why it is not available and how to fix that; auto takes numpy and says why."""
    from minicnn.backends.cpp_backend import CppBackend

    told = available_backends()["cpp"]
    assert told is not None
    assert reason in told
    assert remedy in told
    assert choice() == ("numpy", f"no cpp: {told}")
    CppBackend._shared.cache_clear()
    with pytest.raises(BackendUnavailable, match="cpp: ") as caught:
        get_backend("cpp")
    assert remedy in str(caught.value)
    assert get_backend("auto").name == "numpy"


def test_asking_what_there_is_imports_and_builds_nothing() -> None:
    program = (
        "import sys; from minicnn.backends import available_backends\n"
        "names = available_backends(); print(list(names), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['numpy', 'cpp', 'cuda'] False\n"
    assert done.stderr == ""
