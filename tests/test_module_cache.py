"""The cache of modules: where it is, what of it is not trusted, and what a disk that fails leaves there."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_module

from minicnn import own_files
from minicnn.backends import available_backends, build, choice, get_backend, module_cache, module_file
from minicnn.backends.module_file import BuildError


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the cache that fits."""
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "_compile", tiny_module.compile_nothing)
    path = build.build_for(module_file.CPU)
    assert build.find_module() == (path, [])
    return path


# ---- where it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", ".", "cache", "./cache", "~/cache"])
def test_a_cache_that_is_no_absolute_path_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICNN_CACHE", value)
    with pytest.raises(BuildError) as caught:
        module_cache.root()
    assert str(caught.value) == (
        f"MINICNN_CACHE: expected an absolute path, got {value!r}; "
        "set MINICNN_CACHE to the absolute path of a folder of your own"
    )


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_only_an_absolute_cache_folder_of_the_user_counts(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINICNN_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert module_cache.root() == tmp_path / "xdg" / "minicnn"
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert module_cache.root() == tmp_path / ".cache" / "minicnn"


@pytest.mark.parametrize("name", ["MINICNN_CACHE", "XDG_CACHE_HOME", "HOME"])
@pytest.mark.parametrize("value", ["", "."])
def test_nothing_is_loaded_from_the_working_directory(
    name: str, value: str, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (Path(), Path("minicnn"), Path(".cache/minicnn")):
        planted = tmp_path / "here" / folder / kept.parent.name / kept.name
        planted.parent.mkdir(parents=True)
        planted.write_bytes(kept.read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    for other in ("MINICNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(name, value)
    assert build.find_module()[0] is None


def test_without_a_home_auto_takes_numpy(tmp_path: Path) -> None:
    """The system does not know this user either."""
    code = (
        "import os, pwd\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from minicnn.backends import available_backends, build, module_file, get_backend\n"
        f"module_file.PACKAGE = __import__('pathlib').Path({str(tmp_path / 'minicnn')!r})\n"
        "print(available_backends()['cpp'])\n"
        "print(get_backend('auto').name)\n"
        "from minicnn.doctor import main; main([])\n"
    )
    source = tmp_path / "csrc" / "cpu" / "module.cpp"
    source.parent.mkdir(parents=True)
    source.touch()
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("HOME", "MINICNN_CACHE", "XDG_CACHE_HOME")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    reason, chosen, *table = done.stdout.splitlines()
    assert reason == f"there is no home folder to keep modules in; {module_cache.REMEDY}"
    assert chosen == "numpy"
    assert any("takes numpy" in line for line in table)


# ---- what is not trusted -------------------------------------------------------------------------


def others_may_write(path: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWOTH)


def the_group_may_write(path: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWGRP)


def shared_and_sticky(path: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o1777)


def a_link(path: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's answer is put in."""
    real = os.open

    def refuse(name: os.PathLike[str], *arguments: int, **options: int) -> int:
        if Path(name) == path:
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


DISTRUSTED: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "of another user": (tiny_module.give_to_another_user, "belongs to another user (number "),
    "writable for others": (others_may_write, "other users can write to "),
    "writable for the group": (the_group_may_write, "other users can write to "),
    "a link": (a_link, "is a symbolic link, which is not followed"),
    "unreadable": (cannot_be_read, "cannot read "),
}


@pytest.mark.parametrize("part", ["file", "folder", "cache"])
@pytest.mark.parametrize("kind", [*DISTRUSTED, "sticky"])
def test_what_others_may_have_planted_is_not_used(
    part: str, kind: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, reason = DISTRUSTED.get(kind, (shared_and_sticky, "other users can write to "))
    path = {"file": kept, "folder": kept.parent, "cache": kept.parent.parent}[part]
    plant(path, monkeypatch)
    found, reasons = build.find_module()
    assert found is None
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert str(path) in reasons[0] or kind == "of another user"
    assert module_cache.REMEDY in reasons[0]
    if part != "file":  # which is built anew in a folder that is to be trusted
        assert available_backends()["cpp"] == reasons[0]
        assert choice() == ("numpy", f"no cpp: {reasons[0]}")
        with pytest.raises(BuildError) as caught:
            build.load()
        assert str(caught.value) == reasons[0]


def test_a_module_of_another_user_is_replaced(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minicnn")
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    tiny_module.give_to_another_user(kept, monkeypatch)
    monkeypatch.setattr(build, "_import", lambda path, _spec: path)
    assert build.load() == kept
    assert "not using" in caplog.text
    assert kept.stat().st_uid == 0


def test_a_file_of_another_kind_does_not_hang(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept, 0o600)
    found, reasons = build.find_module()
    assert found is None
    assert "is not what the cache keeps there" in reasons[0]


def test_only_its_user_may_enter_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "_compile", tiny_module.compile_nothing)
    monkeypatch.setenv("MINICNN_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0)
    try:
        path = build.build_for(module_file.CPU)
    finally:
        os.umask(before)
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert build.find_module() == (path, [])


def test_what_is_written_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    for name in ("build.log", ".build.log.new"):
        (tmp_path / name).symlink_to(precious)
    module_cache.write(tmp_path / "build.log", "it does not compile")
    assert precious.read_text() == "keep this"
    assert (tmp_path / "build.log").read_text() == "it does not compile"
    assert not (tmp_path / "build.log").is_symlink()


def test_a_link_that_comes_at_the_last_moment_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    monkeypatch.setattr(own_files.secrets, "token_hex", lambda _: "known")
    (tmp_path / ".build.log.known.new").symlink_to(precious)
    with pytest.raises(FileExistsError):
        module_cache.write(tmp_path / "build.log", "it does not compile")
    assert precious.read_text() == "keep this"


@pytest.mark.parametrize("name", ["lock", "_cpu.so"])
def test_a_folder_in_place_of_a_file(name: str, kept: Path) -> None:
    (kept.parent / name).unlink()
    (kept.parent / name).mkdir()
    if name == "lock":
        kept.unlink()
    with pytest.raises(BuildError, match=r"set MINICNN_CACHE"):
        build.load()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_module.make(tmp_path, monkeypatch)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    reason = available_backends()["cpp"]
    assert reason == f"cannot write to {tmp_path}; {module_cache.REMEDY}"
    assert get_backend("auto").name == "numpy"


# ---- what does not fit ---------------------------------------------------------------------------


def cut_in_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def lacks_its_last_bytes(content: bytes) -> bytes:
    return content[:-5]


def has_another_instruction(content: bytes) -> bytes:
    return content.replace(b"instructions", b"instruktions", 1)


def has_another_description(content: bytes) -> bytes:
    return content.replace(b'"machine"', b'"mashine"')


def has_half_a_module_under_a_whole_stamp(content: bytes) -> bytes:
    module, mark, text = content.rpartition(b"\nminicnn-build:")
    return module[: len(module) // 2] + mark + text


def has_a_stamp_of_another_kind(content: bytes) -> bytes:
    return content.rpartition(b"\nminicnn-build:")[0] + b"\nminicnn-build:[1, 2]"


def is_empty(_content: bytes) -> bytes:
    return b""


DAMAGES = [
    cut_in_half, lacks_its_last_bytes, has_another_instruction, has_another_description,
    has_half_a_module_under_a_whole_stamp, has_a_stamp_of_another_kind, is_empty,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_module_is_built_anew(
    damage: Callable[[bytes], bytes], kept: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "minicnn")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert available_backends()["cpp"] is None
    loaded = []
    monkeypatch.setattr(build, "_import", lambda path, _spec: loaded.append(path.read_bytes()))
    build.load()
    assert loaded == [whole]
    assert f"not using {kept}: it is not whole" in caplog.text
    assert sorted(path.name for path in kept.parent.iterdir()) == ["_cpu.so", "lock"]


def test_a_damaged_module_of_the_package_is_not_used(kept: Path) -> None:
    installed = module_file.PACKAGE / "_cpu.so"
    installed.write_bytes(cut_in_half(kept.read_bytes()))
    found, (reason,) = build.find_module()
    assert found == kept
    assert reason.startswith(f"{installed}: it is not whole")


# ---- a build that failed -------------------------------------------------------------------------


def failing(output: str, calls: list[Path]) -> Callable[[Path, module_file.ModuleSpec], Path]:
    """In place of the compiler: one that prints this and fails."""

    def compile_wrongly(folder: Path, _spec: module_file.ModuleSpec) -> Path:
        calls.append(folder)
        raise RuntimeError(output)

    return compile_wrongly


def test_a_failed_build_is_not_tried_again_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_module.make(tmp_path, monkeypatch)
    calls: list[Path] = []
    monkeypatch.setattr(build, "_compile", failing("Error building\nx.cpp: error: no ;", calls))
    for _ in range(3):
        with pytest.raises(BuildError) as caught:
            build.load()
        told = str(caught.value)
        assert told.startswith("the cpp backend does not compile:\nx.cpp: error: no ;\nall of it: ")
    assert len(calls) == 1
    assert available_backends()["cpp"] == told
    note = build.cached_path().with_name("failed.json")
    assert f"to build again, remove {note}" in told
    assert choice() == ("numpy", f"no cpp: {told}")

    monkeypatch.setenv("MAX_JOBS", "1")
    assert available_backends()["cpp"] is None
    with pytest.raises(BuildError):
        build.load()
    assert len(calls) == 2
    note.unlink()
    assert available_backends()["cpp"] is None
    with pytest.raises(BuildError):
        build.load()
    source.write_text("// mended")
    assert available_backends()["cpp"] is None
    monkeypatch.setattr(build, "_compile", tiny_module.compile_nothing)
    path = build.build_for(module_file.CPU)
    assert sorted(file.name for file in path.parent.iterdir()) == ["_cpu.so", "lock"]


@pytest.mark.parametrize("text", build.PASSING)
def test_a_failure_that_may_pass_is_not_remembered(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "_compile", failing(f"Error building\nfatal error: {text}", []))
    with pytest.raises(BuildError, match=text):
        build.load()
    assert available_backends()["cpp"] is None


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"environment": 1}'])
def test_a_damaged_note_of_a_failure_is_no_obstacle(text: str, kept: Path) -> None:
    kept.unlink()
    module_cache.write(kept.with_name("failed.json"), text)
    assert available_backends()["cpp"] is None


def test_auto_goes_on_where_the_build_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minicnn.backends import Backend, fastest

    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setattr(build, "_compile", failing("Error building\nx.cpp: error: no ;", []))
    Backend._shared.cache_clear()
    assert choice()[0] == "cpp"
    backend, why = fastest()
    assert backend.name == "numpy"
    assert why.startswith("no cpp: the cpp backend does not compile:")
    assert json.loads(build.cached_path().with_name("failed.json").read_text())["reason"]
