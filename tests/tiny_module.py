"""A package with one small C++ source in place of csrc, so that a build takes a second."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicnn.backends import module_file

SOURCE = """
#include <Python.h>
static PyObject* answer(PyObject*, PyObject*) {{ return PyLong_FromLong({answer}); }}
static PyMethodDef methods[] = {{{{"answer", answer, METH_NOARGS, nullptr}}, {{}}}};
static PyModuleDef definition = {{PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, methods}};
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__cpu() {{
    return PyModule_Create(&definition);
}}
"""


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the backends take this folder for the package, with an empty cache; returns the source."""
    pytest.importorskip("torch", reason="the module is built through torch")
    source = folder / "csrc" / "cpu" / "module.cpp"
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE.format(answer=42))
    (folder / "minicnn").mkdir()
    monkeypatch.setattr(module_file, "PACKAGE", folder / "minicnn")
    monkeypatch.setenv("MINICNN_CACHE", str(folder / "cache"))
    return source


def compile_nothing(folder: Path, _spec: module_file.ModuleSpec) -> Path:
    """In place of the compiler: a file that can be found and refused like a module, but not loaded."""
    built = folder / "_cpu.so"
    built.write_bytes(b"\x7fELF" + b"instructions" * 100)
    return built


def give_to_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file belong to another user; without root's rights, be another user instead."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
    else:
        stranger = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
