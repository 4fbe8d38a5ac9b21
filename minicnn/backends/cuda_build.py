"""How the CUDA module is built: with nvcc for a GPU, or with the C++ compiler for its emulation on the CPU.

Nothing here imports torch before a build.  setup.py loads this file without the rest of minicnn.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from . import compiler, module_file, torch_package
from .module_file import ModuleSpec
from .programs import answer, ask

INSTALL_TOOLKIT = "install NVIDIA's CUDA toolkit, or set CUDA_HOME to it"
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
"""Machine code for Ampere (8.0) and Hopper (9.0), and PTX, which a later GPU's driver translates."""


def emulated() -> bool:
    """Whether MINICNN_CUDA_EMULATION asks that the kernels run on the CPU, as tests do."""
    return os.environ.get("MINICNN_CUDA_EMULATION", "0") not in ("", "0")


def label() -> str:
    """The name under which the cuda backend's results are printed."""
    return "cuda (emulated on the CPU)" if emulated() else "cuda"


def module_spec() -> ModuleSpec:
    """The module that get_backend("cuda") loads."""
    return EMULATED if emulated() else CUDA


# ---- what there is ---------------------------------------------------------------------------------


@cache
def cuda_home() -> Path | None:
    """The toolkit's folder, or None: CUDA_HOME or CUDA_PATH, or the folder that nvcc itself names.

    The place of nvcc on PATH does not tell: that file may be a wrapper.  A relative CUDA_HOME is ignored,
    so that no nvcc of the working directory is run.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if Path(os.environ.get(name, "")).is_absolute():
            return Path(os.environ[name])
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None
    done = ask(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull)
    top = re.search(r"^#\$ TOP=(.*)$", done.stderr, re.MULTILINE) if done else None
    return Path(top.group(1)).resolve() if top else Path(nvcc).resolve().parent.parent


@cache
def toolkit_version() -> str | None:
    """The toolkit's version, such as 13.0; None if there is no toolkit."""
    home = cuda_home()
    nvcc = home / "bin" / "nvcc" if home else None
    said = None if nvcc is None else answer(str(nvcc), "--version")
    release = re.search(r"release (\d+\.\d+)", said or "")
    return release.group(1) if release else None


def missing_for_build() -> str | None:
    """Why nvcc cannot build the module here, and how to fix it; None if it can."""
    reason = torch_package.missing()
    if reason is not None:
        return reason
    toolkit, torch_cuda = toolkit_version(), torch_package.cuda_version()
    if torch_cuda is None:
        return "this torch was built without CUDA; install one that was: https://pytorch.org/get-started"
    if toolkit is None:
        return f"no CUDA toolkit (nvcc); {INSTALL_TOOLKIT}"
    if toolkit.split(".")[0] != torch_cuda.split(".")[0]:
        return (
            f"the CUDA toolkit is {toolkit}, torch was built with CUDA {torch_cuda}; "
            f"install a toolkit {torch_cuda.split('.')[0]}.x, or a torch for CUDA {toolkit}"
        )
    return None


@cache
def missing_gpu() -> str | None:
    """Why there is no GPU to run on; None if there is one.  Imports torch only if there is a driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 is not there); install NVIDIA's driver for your GPU"
    reason = torch_package.missing()
    if reason is not None:
        return reason
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"torch cannot be imported ({error}); install it anew with: {torch_package.INSTALL}"

    if torch.cuda.is_available():
        return None
    return "torch finds no usable GPU; python -c 'import torch; torch.cuda.init()' says why"


# ---- the two modules -------------------------------------------------------------------------------


def sources() -> list[Path]:
    """The translation units of both modules."""
    folder = module_file.source_folder() / "cuda"
    return [*sorted(folder.rglob("*.cu")), folder / "module.cpp"]


def architectures() -> str:
    """What to compile for: TORCH_CUDA_ARCH_LIST, or a default, so that a build needs no GPU."""
    return os.environ.get("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)


def host_flags() -> list[str]:
    """The C++ compiler's flags for module.cpp of the module for a GPU."""
    return [
        "-O2",
        "-g0",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wno-missing-field-initializers",
        *compiler.WERROR,
    ]


def nvcc_flags() -> list[str]:
    """nvcc's flags for the kernels, which keep NaN and infinity."""
    werror = ["-Werror=all-warnings"] if compiler.WERROR else []
    return ["-O3", "-Xcompiler", "-Wall,-Wextra,-fvisibility=hidden", "-lineinfo", *werror]


def prepare() -> None:
    """Tell torch's build which toolkit and which architectures to take."""
    home = cuda_home()
    os.environ["CUDA_HOME"] = str(home)
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
    from torch.utils import cpp_extension

    cpp_extension.CUDA_HOME = str(home)  # if it was imported before, it has set this already


def _cuda_options() -> dict[str, Any]:
    prepare()
    return {"extra_cflags": host_flags(), "extra_cuda_cflags": nvcc_flags(), "with_cuda": True}


def emulation_flags() -> list[str]:
    """Flags with which the C++ compiler reads .cu files as C++, with the emulation's headers for CUDA's."""
    folder = module_file.source_folder() / "cuda_emulation"
    return [
        "-x", "c++", f"-I{folder}", "-DMINICNN_CUDA_EMULATION=1", "-O2", "-g0", "-fvisibility=hidden",
        "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-attributes", "-Wno-missing-field-initializers",
        *compiler.WERROR,
    ]  # fmt: skip


def _emulation_options() -> dict[str, Any]:
    return {"extra_cflags": emulation_flags(), "with_cuda": False}


CUDA = ModuleSpec(
    label="cuda backend",
    stem="_cuda",
    folders=("cuda",),
    sources=sources,
    about=lambda: {"cuda": torch_package.cuda_version(), "architectures": architectures()},
    missing=missing_for_build,
    load_options=_cuda_options,
)

EMULATED = ModuleSpec(
    label="emulated cuda backend",
    stem="_cuda_emulated",
    folders=("cuda", "cuda_emulation"),
    sources=sources,
    about=dict,
    missing=lambda: None,
    load_options=_emulation_options,
)
