"""Which C++ compiler builds the modules: commands of several words, ccache, one compiler of two names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_module

from minicnn.backends import available_backends, build, compiler, get_backend, programs
from minicnn.doctor import main as doctor

GCC = "(Debian 12.2.0-14) 12.2.0"
CLANG = "Debian clang version 14.0.6"


def script(path: Path, text: str) -> Path:
    """A program of the shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def fake_compiler(path: Path, version: str, macros: str) -> Path:
    """A program that answers as a compiler does, and whose macros follow -m32."""
    return script(
        path,
        f'for word; do test "$word" = -m32 && bits=32; done\n'
        f'case " $* " in *" --version "*) echo "{version}"; echo more;;\n'
        f'*" -dM "*) echo "#define {macros} $bits";; *) exit 1;; esac',
    )


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with g++, c++ (the same one), clang++ and a ccache that runs what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake_compiler(folder / "g++", f"g++ {GCC}", "__GNUC__ 12")
    fake_compiler(folder / "c++", f"c++ {GCC}", "__GNUC__ 12")
    fake_compiler(folder / "clang++", CLANG, "__clang__ 1")
    script(folder / "ccache", 'test "$1" = --version && echo "ccache version 4.7.5" && exit\nexec "$@"')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def identity(cxx: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CXX", cxx)
    assert compiler.missing() is None
    found = compiler.identity()
    assert found is not None
    return found


def test_a_compiler_is_the_same_whatever_it_is_called(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["", "g++", "c++", str(bin_folder / "g++"), "ccache g++", "ccache c++", "g++ -O1"]
    assert len({identity(name, monkeypatch) for name in names}) == 1
    assert identity("g++", monkeypatch).startswith(f"{GCC}, macros ")


@pytest.mark.usefixtures("bin_folder")
def test_ccache_does_not_hide_which_compiler_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["ccache g++", "ccache clang++", "ccache g++ -m32", "clang++ -m32"]
    assert len({identity(name, monkeypatch) for name in names}) == len(names)
    assert identity("ccache clang++", monkeypatch).startswith(f"{CLANG}, macros ")
    paths = set()
    for name in names:
        monkeypatch.setenv("CXX", name)
        paths.add(build.cached_path())
    assert len(paths) == len(names)


def test_words_are_told_apart_as_a_shell_does(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bin_folder / "my compilers").mkdir()
    program = fake_compiler(bin_folder / "my compilers" / "g++", f"g++ {GCC}", "__GNUC__ 12")
    monkeypatch.setenv("CXX", f"'{program}' -m64")
    assert compiler.command() == [str(program), "-m64"]
    assert compiler.version() == f"g++ {GCC}"
    monkeypatch.chdir(bin_folder)
    monkeypatch.setenv("CXX", "./g++")
    assert compiler.command() == [str(bin_folder / "g++")], "a build runs in another folder"


@pytest.mark.parametrize("real", ["ccache g++", "g++ -m64"])
def test_a_command_of_several_words_builds(
    real: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if None in (shutil.which("g++"), shutil.which(real.split()[0])):
        pytest.skip(f"{real}: not all of it is installed")
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setenv("CXX", real)
    assert build.load().answer() == 42
    if real.startswith("ccache"):
        path = build.cached_path()
        monkeypatch.setenv("CXX", "g++")
        assert build.find_module() == (path, [])


@pytest.mark.parametrize(
    ("cxx", "reason"),
    [
        ("nosuch++", "no C++ compiler (CXX is 'nosuch++'); install one with: "),
        ("g++ 'unclosed", 'no C++ compiler (CXX is "g++ \'unclosed"); install one with: '),
        ("false", "/false is no C++ compiler that works; install one with: "),
        ("true", "/true is no C++ compiler that works; install one with: "),
    ],
)
def test_what_is_no_compiler_is_a_reason(
    cxx: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_module.make(tmp_path, monkeypatch)
    monkeypatch.setenv("CXX", cxx)
    told = available_backends()["cpp"]
    assert told is not None
    assert reason in told
    assert compiler.INSTALL in told
    assert get_backend("auto").name == "numpy"
    doctor([])
    assert "takes numpy" in capsys.readouterr().out


def test_what_a_compiler_complains_of_is_told(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = script(bin_folder / "odd++", "echo 'odd++: no licence' >&2\necho more >&2\nexit 1")
    monkeypatch.setenv("CXX", "odd++ -O1")
    assert compiler.missing() == (
        f"{odd} -O1 is no C++ compiler that works (odd++: no licence); install one with: {compiler.INSTALL}"
    )


@pytest.mark.parametrize("text", [None, "sleep 60"], ids=["cannot be executed", "hangs"])
def test_a_program_that_does_not_answer_is_no_compiler(
    text: str | None, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "SECONDS_TO_ANSWER", 0.2)
    if text is None:
        (bin_folder / "odd++").write_bytes(b"\x7fELF of another machine")
        (bin_folder / "odd++").chmod(0o755)
    else:
        script(bin_folder / "odd++", text)
    monkeypatch.setenv("CXX", "odd++")
    assert compiler.missing() == (
        f"{bin_folder / 'odd++'} is no C++ compiler that works; install one with: {compiler.INSTALL}"
    )


# ---- torch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["torch/__init__.py", "torch.py", "torch/version.py", "torch/readme"])
@pytest.mark.parametrize("installed", [True, False])
def test_something_else_that_is_called_torch(place: str, installed: bool, tmp_path: Path) -> None:
    """In the working directory, from which Python imports first; a folder of no package comes last."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    hidden = "" if installed else "sys.path = [path for path in sys.path if 'site-packages' not in path]\n"
    code = (
        "import sys, numpy, filelock, rich.table, threadpoolctl\n"
        f"{hidden}sys.path.insert(0, {str(tmp_path)!r})\n"
        "from minicnn.backends import available_backends, get_backend, cuda_build, module_file\n"
        "module_file.PACKAGE = module_file.PACKAGE / 'none'\n"
        "print(available_backends()['cpp']); print(cuda_build.missing_for_build())\n"
        "print(get_backend('auto').name)\n"
        "from minicnn.doctor import main; main([])\n"
    )
    environment = {**os.environ, "CXX": "nosuch++"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    cpp, cuda, chosen, *_ = done.stdout.splitlines()
    assert chosen == "numpy"
    if installed and place in ("torch/version.py", "torch/readme"):
        assert "no C++ sources" in cpp
        return
    thing = tmp_path / place.partition("/")[0]
    assert cpp == cuda
    assert cpp.startswith(f"{thing} is not PyTorch; rename it or start in another folder")
