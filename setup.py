"""Builds the CPU module if torch and a C++ compiler are there; without them the package is pure Python.

The CUDA module is built too if there is a CUDA toolkit that fits torch.  With FORCE_CUDA=1 it is an error
if that module cannot be built; FORCE_CUDA=0 leaves it out.

``pip install --no-build-isolation .`` lets this file see the installed torch.  Everything else about the
package is in pyproject.toml.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def _load_backends(*names: str) -> list[ModuleType]:
    """Modules of minicnn.backends, imported without the package: NumPy may not be installed yet."""
    folder = ModuleType("backends")
    folder.__path__ = [str(ROOT / "minicnn" / "backends")]
    sys.modules["backends"] = folder
    return [importlib.import_module(f"backends.{name}") for name in names]


compiler, torch_package, module_file, cuda_build = _load_backends(
    "compiler", "torch_package", "module_file", "cuda_build"
)


class BuildWithSources(build_py):
    """Copies csrc into the package, so that a module can also be built on first use."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "minicnn" / "csrc"
            shutil.copytree(ROOT / "csrc", target, dirs_exist_ok=True)


def _report_left_out(reason: str) -> None:
    """Say why a module is left out; stop if FORCE_CUDA asks for it."""
    force = os.environ.get("FORCE_CUDA", "")
    if force not in ("", "0"):
        raise SystemExit(f"minicnn: FORCE_CUDA={force}, but {reason}")
    print(f"minicnn: {reason}")


def cuda_modules() -> list[object]:
    """The CUDA module in a list; an empty list, after a line that says why, if it cannot be built."""
    reason = "FORCE_CUDA=0" if os.environ.get("FORCE_CUDA") == "0" else cuda_build.missing_for_build()
    if reason is not None:
        _report_left_out(f"{reason}: installing without the cuda backend's module")
        return []
    cuda_build.prepare()
    from torch.utils.cpp_extension import CUDAExtension

    print(f"minicnn: building the cuda backend for {cuda_build.architectures()}")
    module = CUDAExtension(
        "minicnn._cuda",
        [str(path.relative_to(ROOT)) for path in cuda_build.sources()],
        depends=[str(path.relative_to(ROOT)) for path in sorted(module_file.source_folder().rglob("*.h"))],
        extra_compile_args={"cxx": cuda_build.host_flags(), "nvcc": cuda_build.nvcc_flags()},
    )
    return [module]


def options() -> dict[str, object]:
    """setup()'s arguments that build the compiled modules; none if they cannot, and a line says why."""
    reason = torch_package.missing() or compiler.missing()
    if reason is not None:
        _report_left_out(f"{reason}: installing without compiled modules; the numpy backend needs none")
        return {}
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    class BuildStamped(BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            self.force = True  # ninja decides which files are out of date, not distutils

        def build_extension(self, ext: object) -> None:
            spec = cuda_build.CUDA if ext.name == "minicnn._cuda" else module_file.CPU
            about = module_file.description(spec)
            super().build_extension(ext)
            module_file.stamp(Path(self.get_ext_fullpath(ext.name)), about)

    os.environ.setdefault("MAX_JOBS", str(compiler.parallel_jobs()))
    folder = module_file.source_folder()
    module = CppExtension(
        "minicnn._cpu",
        [str(path.relative_to(ROOT)) for path in module_file.sources()],
        depends=[str(path.relative_to(ROOT)) for path in sorted(folder.rglob("*.h"))],
        extra_compile_args=compiler.flags(module_file.wanted_level().flags),
        extra_link_args=compiler.LINK_FLAGS,
    )
    return {"ext_modules": [module, *cuda_modules()], "cmdclass": {"build_ext": BuildStamped}}


chosen = options()
with tempfile.TemporaryDirectory() as folder:
    if "CXX" in os.environ:
        os.environ["CXX"] = compiler.one_word(Path(folder)) or os.environ["CXX"]
    setup(**{**chosen, "cmdclass": {"build_py": BuildWithSources, **chosen.get("cmdclass", {})}})
