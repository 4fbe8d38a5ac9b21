"""Builds the CPU module if torch and a C++ compiler are there; without them the package is pure Python.

``pip install --no-build-isolation .`` lets this see the installed torch.  Everything else about the
package is in pyproject.toml.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def _load_build() -> ModuleType:
    """minicnn/backends/build.py on its own: the package itself needs NumPy, which may not be here yet."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "minicnn" / "backends" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = _load_build()


class BuildWithSources(build_py):
    """Takes csrc into the package, so that the module can be built on first use as well."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "minicnn" / "csrc"
            shutil.copytree(ROOT / "csrc", target, dirs_exist_ok=True)


def options() -> dict[str, object]:
    """setup()'s arguments for the compiled module, or none, saying why."""
    reason = "torch cannot be imported" if importlib.util.find_spec("torch") is None else None
    if reason is None and build.compiler() is None:
        reason = "there is no C++ compiler"
    if reason is not None:
        print(f"minicnn: {reason}: installing without compiled modules; the numpy backend needs none")
        return {}
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    class BuildStamped(BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            self.force = True  # ninja knows better than distutils what is up to date

        def build_extension(self, ext: object) -> None:
            about = build.description()
            super().build_extension(ext)
            build.stamp(Path(self.get_ext_fullpath(ext.name)), about)

    os.environ.setdefault("MAX_JOBS", str(build.parallel_jobs()))
    folder = build.source_folder()
    module = CppExtension(
        "minicnn._cpu",
        [str(path.relative_to(ROOT)) for path in build.sources()],
        depends=[str(path.relative_to(ROOT)) for path in sorted(folder.rglob("*.h"))],
        extra_compile_args=build.compile_flags(),
        extra_link_args=build.LINK_FLAGS,
    )
    return {"ext_modules": [module], "cmdclass": {"build_ext": BuildStamped}}


chosen = options()
setup(**{**chosen, "cmdclass": {"build_py": BuildWithSources, **chosen.get("cmdclass", {})}})
