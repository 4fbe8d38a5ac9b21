"""The backends: one table of operations each, behind one contract."""

from __future__ import annotations

from minicnn.backends.base import Backend, BackendUnavailable, Conv, Pool
from minicnn.backends.primitives import Array, Pair

__all__ = [
    "Array", "Backend", "BackendUnavailable", "Conv", "Pair", "Pool", "available_backends", "get_backend",
]  # fmt: skip


def get_backend(name: str) -> Backend:
    """The backend of this name: "auto", "numpy", "cpp" or "cuda"."""
    from minicnn.backends.numpy_backend import NumpyBackend

    if name in ("auto", "numpy"):
        return NumpyBackend()
    raise BackendUnavailable(f"{name}: not available")


def available_backends() -> dict[str, str | None]:
    """Backend name -> None if it can be had, else the reason why not."""
    return {"numpy": None}
