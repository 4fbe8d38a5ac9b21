"""What the tests, the benchmarks and ``python -m minicnn.verify`` share: one table of cases.

A `Case` is one line of data: an operation, its inputs and its attributes.  `OPERATIONS` says how to
run an operation on a backend and in torch; `tolerance` says how far the two may lie apart.
"""

from minicnn.testing.cases import CASES, Case
from minicnn.testing.operations import OPERATIONS, Operation
from minicnn.testing.oracle import Problem, Results, draw, run_backend, run_torch
from minicnn.testing.tolerance import assert_close, tolerance

__all__ = [
    "CASES",
    "OPERATIONS",
    "Case",
    "Operation",
    "Problem",
    "Results",
    "assert_close",
    "draw",
    "run_backend",
    "run_torch",
    "tolerance",
]
