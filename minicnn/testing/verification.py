"""Running every check on a backend and counting the results, for ``python -m minicnn.verify``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from minicnn.backends.base import Backend
from minicnn.testing.checks import Check, case_checks
from minicnn.testing.optimizers import optimizer_checks
from minicnn.testing.refusals import refusal_checks
from minicnn.testing.rules import rule_checks
from minicnn.testing.tolerance import Error


def all_checks(backend: str, *, full: bool = False) -> Iterator[Check]:
    """Everything that is checked on the backend of this name."""
    yield from case_checks(backend, full=full)
    yield from rule_checks()
    yield from refusal_checks()
    yield from optimizer_checks()


@dataclass
class Row:
    """The results of the checks of one operation in one dtype on one backend."""

    backend: str
    op: str
    dtype: str
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    """Kind of check -> how many checks passed and how many failed."""
    worst_relative_error: float = 0.0
    """Against torch, relative to the largest element of the same array."""
    worst_ulps: float = 0.0
    """The same in units in the last place of that element."""

    def add(self, kind: str, passed: bool, error: Error | None) -> None:
        counts = self.kinds.setdefault(kind, {"passed": 0, "failed": 0})
        counts["passed" if passed else "failed"] += 1
        if error is not None:
            self.worst_relative_error = max(self.worst_relative_error, error.relative)
            self.worst_ulps = max(self.worst_ulps, error.ulps)

    @property
    def passed(self) -> int:
        return sum(counts["passed"] for counts in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(counts["failed"] for counts in self.kinds.values())

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed, "failed": self.failed}


class Failure(NamedTuple):
    """One check that did not hold, and its message."""

    backend: str
    op: str
    dtype: str
    kind: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.backend} {self.op} {self.dtype}, {self.subject}, {self.kind}: {self.message}"


def verify(
    backend: Backend, checks: Iterable[Check], done: Callable[[Check], None] = lambda _: None
) -> tuple[list[Row], list[Failure]]:
    """Run all checks, even if some fail; a warning counts as a failure.

    ``done`` is called after each check.
    """
    rows: dict[tuple[str, str], Row] = {}
    failures = []
    for check in checks:
        row = rows.setdefault((check.op, check.dtype), Row(backend.name, check.op, check.dtype))
        error = None
        message = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                error = check.run(backend)
        except AssertionError as reason:
            message = str(reason) or "failed"
        except Exception as reason:  # any exception of an operation is a failure
            message = f"{type(reason).__name__}: {reason}"
        row.add(check.kind, not message, error)
        if message:
            failures.append(
                Failure(backend.name, check.op, check.dtype, check.kind, check.subject, message)
            )
        done(check)
    return list(rows.values()), failures
