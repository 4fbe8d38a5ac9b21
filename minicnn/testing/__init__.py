"""What the tests, the benchmarks and ``python -m minicnn.verify`` share: cases, oracles and checks.

A `Case` is one line of data: an operation, its inputs and its attributes.  `OPERATIONS` says how to
run an operation on a backend and in torch; `tolerance` says how far the two results may differ.  A `Check`
is one thing to check on a backend, for a case, a rule or a refusal.
"""

from minicnn.testing.cases import CASES, Case
from minicnn.testing.checks import Check, case_checks
from minicnn.testing.differences import Point, assert_slope
from minicnn.testing.operations import OPERATIONS, Operation
from minicnn.testing.oracle import Problem, Results, draw, run_backend, run_torch
from minicnn.testing.refusals import REFUSALS, Wrong, refusal_checks
from minicnn.testing.rules import rule_checks
from minicnn.testing.tolerance import Error, assert_close, tolerance

__all__ = [
    "CASES",
    "OPERATIONS",
    "REFUSALS",
    "Case",
    "Check",
    "Error",
    "Operation",
    "Point",
    "Problem",
    "Results",
    "Wrong",
    "assert_close",
    "assert_slope",
    "case_checks",
    "draw",
    "refusal_checks",
    "rule_checks",
    "run_backend",
    "run_torch",
    "tolerance",
]
