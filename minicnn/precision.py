"""How exactly a model computes: the precisions that it can have.

float32   everything is float32
tf32      float32, but cuda rounds factors to 10 bits of fraction where tensor cores multiply them
bfloat16  activations, and the factors of convolution and dense layers, are bfloat16; parameters, their
          gradients, statistics, the optimizer's state and the loss are float32

Where bfloat16 is rounded is part of the contract: see `minicnn.backends.primitives`.
"""

from __future__ import annotations

from minicnn.backends import Backend
from minicnn.shapes import fail

PRECISIONS = ("float32", "tf32", "bfloat16")


def check(where: str, precision: str, *, dtype: str, backend: Backend) -> None:
    """Raise ValueError unless a model with parameters of this dtype can compute so on the backend."""
    check_name(where, precision)
    if precision == "tf32" and backend.name != "cuda":
        expected = f"float32 or bfloat16 on {backend.name}, as cuda alone has tf32"
        fail(where, "precision", expected, precision)
    if precision != "float32" and dtype != "float32":
        fail(where, "precision", f"float32 with dtype {dtype}, which computes as ever", precision)


def check_name(where: str, precision: str) -> None:
    """Raise ValueError unless there is such a precision."""
    if precision not in PRECISIONS:
        fail(where, "precision", f"one of {', '.join(PRECISIONS)}", repr(precision))
