"""The backends: each is a table of operations, and all of them keep one contract."""

from __future__ import annotations

import logging

from minicnn.backends.base import Backend, BackendUnavailable, Conv, Pool
from minicnn.backends.primitives import Array, Pair

__all__ = [
    "Array", "Backend", "BackendUnavailable", "Conv", "Pair", "Pool", "available_backends", "choice",
    "fastest", "get_backend",
]  # fmt: skip

_log = logging.getLogger(__name__)


def get_backend(name: str) -> Backend:
    """The backend of this name: "numpy", "cpp" or "cuda", or "auto" for the fastest that works here.

    Raises: BackendUnavailable with the reason and how to fix it; no other backend is taken instead
    """
    if name == "auto":
        backend, why = fastest()
        _log.info("auto: %s (%s)", backend.name, why)
        return backend
    return _make(name)


def fastest() -> tuple[Backend, str]:
    """The backend that "auto" takes here, and why; its module is built if it need be.

    Where a module can be neither built nor loaded, the next backend is taken.
    """
    found = available_backends()
    while True:
        name, why = _choice(found)
        try:
            return _make(name), why
        except BackendUnavailable as error:
            found[name] = str(error).removeprefix(f"{name}: ")


def choice() -> tuple[str, str]:
    """The backend that "auto" tries first here, and why; it never takes the emulated cuda."""
    return _choice(available_backends())


def _choice(found: dict[str, str | None]) -> tuple[str, str]:
    """The fastest of the backends without a reason why not, and why it is taken."""
    from minicnn.backends import cuda_build

    if found["cuda"] is None and not cuda_build.emulated():
        return "cuda", "there is a GPU"
    if found["cpp"] is None:
        return "cpp", "compiled kernels are available"
    return "numpy", f"no cpp: {found['cpp']}"


def available_backends() -> dict[str, str | None]:
    """Backend name -> None if it is available, else the reason why not.  Builds nothing.

    Where MINICNN_CUDA_EMULATION=1 asks for the emulation, cuda needs no GPU to be available.
    """
    from minicnn.backends import build, cuda_build

    no_gpu = None if cuda_build.emulated() else cuda_build.missing_gpu()
    return {
        "numpy": None,
        "cpp": build.missing(),
        "cuda": no_gpu or build.missing(cuda_build.module_spec()),
    }


def _make(name: str) -> Backend:
    if name == "numpy":
        from minicnn.backends.numpy_backend import NumpyBackend

        return NumpyBackend._shared()
    if name == "cpp":
        from minicnn.backends.cpp_backend import CppBackend

        return CppBackend._shared()
    if name == "cuda":
        from minicnn.backends.cuda_backend import CudaBackend

        return CudaBackend._shared()
    raise BackendUnavailable(f"backend: expected one of {', '.join(available_backends())}, got {name!r}")
