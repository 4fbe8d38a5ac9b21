"""A build on a disk that fails: at every write, sync, rename and new folder, one after the other."""

from __future__ import annotations

from pathlib import Path

import failing
import pytest
import tiny_module

from minicnn.backends import available_backends, build, module_cache, module_file
from minicnn.backends.module_file import BuildError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache, and a compiler that is done at once."""
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "_compile", tiny_module.compile_nothing)
    monkeypatch.setattr(build, "_import", lambda path, _spec: path.read_bytes())
    return tmp_path / "cache"


def calls_of(kind: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many calls of a kind a build makes that does not fail; the cache is another one."""
    other = cache.with_name("another")
    monkeypatch.setenv("MINICNN_CACHE", str(other))
    with failing.disk(other, kind) as calls:
        build.load()
    monkeypatch.setenv("MINICNN_CACHE", str(cache))
    return len(calls)


def attempt() -> tuple[object, str]:
    """What is loaded, or None and the error."""
    try:
        return build.load(), ""
    except BuildError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", failing.KINDS)
def test_a_build_that_fails_anywhere_leaves_nothing_that_is_loaded(
    kind: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build.load()
    monkeypatch.setenv("MINICNN_CACHE", str(cache.with_name("first")))
    places = calls_of(kind, cache, monkeypatch)
    assert places > 0
    for number in range(1, places + 1):
        folder = cache.with_name(f"{kind}-{number}")
        monkeypatch.setenv("MINICNN_CACHE", str(folder))
        with failing.disk(folder, kind, number) as calls:
            loaded, told = attempt()
        assert len(calls) >= number, "the failure was met"
        assert loaded in (expected, None)
        if loaded is None:
            assert str(folder) in told
            assert "No space left on device" in told
        found, _ = build.find_module()
        assert found is None or found.read_bytes() == expected
        assert available_backends()["cpp"] is None, "the next start may try again"
        assert build.load() == expected
        assert sorted(path.name for path in build.cached_path().parent.iterdir()) == ["_cpu.so", "lock"]


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "replace"])
def test_a_failed_build_says_why_even_if_that_cannot_be_kept(
    kind: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_wrongly(_folder: Path, _spec: module_file.ModuleSpec) -> Path:
        raise RuntimeError("Error building\nx.cpp: error: no ;")

    monkeypatch.setattr(build, "_compile", compile_wrongly)
    with failing.disk(cache, kind) as calls, pytest.raises(BuildError):
        build.load()
    for number in range(1, len(calls) + 1):
        folder = cache.with_name(f"{kind}-{number}")
        monkeypatch.setenv("MINICNN_CACHE", str(folder))
        with failing.disk(folder, kind, number), pytest.raises(BuildError) as caught:
            build.load()
        told = str(caught.value)
        assert "x.cpp: error: no ;" in told or "cannot lock" in told
        assert "No space left on device" in told


def test_a_file_has_reached_the_disk_before_it_gets_its_name(tmp_path: Path) -> None:
    aside, path = tmp_path / "aside", tmp_path / "file"
    aside.write_text("whole")
    with failing.disk(tmp_path, "fsync") as synced, failing.disk(tmp_path, "replace", 1):
        with pytest.raises(OSError, match="No space left"):
            module_cache.keep(aside, path)
        assert synced == [str(aside)]
    with failing.disk(tmp_path, "fsync") as synced:
        module_cache.keep(aside, path)
    assert synced == [str(aside), str(tmp_path)]
    assert path.read_text() == "whole"
