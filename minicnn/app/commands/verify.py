"""``minicnn verify``: check every operation of every backend on this machine against torch.

Exit status: 0 where every check passed, 1 where one failed, 2 for wrong arguments or without torch.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minicnn import __version__
from minicnn.app.command_line import Parser, make_console
from minicnn.app.progress import duration
from minicnn.backends import BackendUnavailable, cuda_build, get_backend, torch_package
from minicnn.files import to_json, write_json
from minicnn.testing.checks import DTYPES
from minicnn.testing.verification import Failure, Row, all_checks, verify
from minicnn.threads import set_num_threads

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BACKENDS = ("numpy", "cpp", "cuda")
SHOWN = 5
"""Failures printed for each operation and backend; the JSON document has all."""


class Examined(NamedTuple):
    """A backend, and what came of its checks; or why there is none."""

    name: str
    label: str
    reason: str
    """What was not checked, and why; empty if everything was."""
    rows: list[Row]
    failures: list[Failure]


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.verify") -> None:
    """Verify what the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    reason = torch_package.missing()
    if reason is not None:
        raise BackendUnavailable(f"verify compares with torch: {reason}")
    set_num_threads(1)  # the arrays are small; one of the checks sets 2 and 3 threads itself
    started = time.monotonic()
    console = make_console(stderr=args.json == "-")
    found = []
    for name in args.backend or BACKENDS:
        found.append(_examine(name, args))
        _show(console, found[-1])
    seconds = time.monotonic() - started
    _show_verdict(console, found, seconds)
    if args.json:
        _write_json(args, found, seconds)
    if any(one.failures for one in found):
        sys.exit(1)


def _examine(name: str, args: argparse.Namespace) -> Examined:
    """All checks of one backend.  Raises: BackendUnavailable if it was asked for and is not there."""
    no_gpu = cuda_build.missing_gpu() if name == "cuda" else None
    if no_gpu is not None:
        os.environ["MINICNN_CUDA_EMULATION"] = "1"
    try:
        backend = get_backend(name)
    except BackendUnavailable as missing:
        if args.backend:
            raise
        return Examined(name, name, f"{name}: not checked: {missing}", [], [])
    checks = [check for check in all_checks(name, full=args.full) if check.op in (args.op or [check.op])]
    with _progress(backend.label, len(checks)) as advance:
        rows, failures = verify(backend, checks, lambda _: advance())
    reason = f"{name}: emulated on the CPU; not checked on a GPU: {no_gpu}" if no_gpu else ""
    return Examined(name, backend.label, reason, rows, failures)


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr in a terminal, else nothing; the function that it yields moves the bar by a check."""
    from rich.progress import Progress

    console = make_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


# ---- what is printed -------------------------------------------------------------------------------


def _show(console: Console, one: Examined) -> None:
    if one.rows:
        console.print(_table(one))
    for _, group in groupby(one.failures, key=lambda failure: failure.op):
        failures = list(group)
        for failure in failures[:SHOWN]:
            console.print(f"failed: {failure}")
        if len(failures) > SHOWN:
            console.print(f"        and {len(failures) - SHOWN} more of {one.name} {failures[0].op}")


def _table(one: Examined) -> Table:
    from rich.table import Table

    table = Table(title=one.label, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("operation", no_wrap=True)
    for dtype in DTYPES:
        for heading in (dtype, "error", "ULPs"):
            table.add_column(heading, justify="right", no_wrap=True)
    by_op: dict[str, dict[str, Row]] = {}
    for row in one.rows:
        by_op.setdefault(row.op, {})[row.dtype] = row
    for op, rows in by_op.items():
        cells = [cell for dtype in DTYPES for cell in _cells(rows.get(dtype))]
        table.add_row(op, *cells, style="red" if any(row.failed for row in rows.values()) else None)
    return table


def _cells(row: Row | None) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    passed = f"{row.passed}/{row.passed + row.failed}"
    return passed, f"{row.worst_relative_error:.1e}", f"{row.worst_ulps:.1f}"


def _show_verdict(console: Console, found: list[Examined], seconds: float) -> None:
    passed, failed = _counts(found)
    console.print(
        "float32, float64: checks passed; error: the largest difference from the float64 autograd of "
        f"torch {torch_package.version()}, relative to the largest element of its array; ULPs: the same in "
        "units in the last place of that element"
    )
    for one in found:
        if one.reason:
            console.print(one.reason)
    labels = ", ".join(one.label for one in found if one.rows)
    outcome = (
        f"{failed:,} of {passed + failed:,} checks failed" if failed else f"all {passed:,} checks passed"
    )
    console.print(f"verdict: {outcome} on {labels}, {duration(seconds)}")


def _counts(found: list[Examined]) -> tuple[int, int]:
    """How many checks passed and failed."""
    rows = [row for one in found for row in one.rows]
    return sum(row.passed for row in rows), sum(row.failed for row in rows)


def _write_json(args: argparse.Namespace, found: list[Examined], seconds: float) -> None:
    document = _document(args.full, found, seconds)
    if args.json == "-":
        print(to_json(document, indent=2))
    else:
        write_json(args.json, document)


def _document(full: bool, found: list[Examined], seconds: float) -> dict[str, Any]:
    passed, failed = _counts(found)
    versions = {
        "minicnn": __version__, "torch": torch_package.version(), "numpy": np.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
    return {
        "verdict": "failed" if failed else "passed",
        "passed": passed,
        "failed": failed,
        "full": full,
        "seconds": round(seconds, 1),
        "versions": versions,
        "backends": [
            {"name": one.name, "label": one.label, "checked": bool(one.rows), "reason": one.reason or None}
            for one in found
        ],
        "rows": [row.as_json() for one in found for row in one.rows],
        "failures": [failure._asdict() for one in found for failure in one.failures],
    }


# ---- arguments -------------------------------------------------------------------------------------


def _parser(prog: str) -> argparse.ArgumentParser:
    operations = list(dict.fromkeys(check.op for check in all_checks("numpy")))
    parser = Parser(
        prog, "[options]", "Check every operation of every backend against torch and the contract."
    )
    parser.add_argument(
        "--backend", type=_some_of(BACKENDS), metavar="NAMES",
        help="some of numpy,cpp,cuda (default: all; without a GPU, cuda's kernels emulated on the CPU)",
    )  # fmt: skip
    parser.add_argument(
        "--op", type=_some_of(operations), metavar="NAMES",
        help=f"some of {','.join(operations)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--full", action="store_true",
        help="ten draws of every case's inputs, and every memory layout of each (default: one draw)",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE", help="write the results here too, for machines; - prints them alone"
    )
    return parser


def _some_of(allowed: list[str] | tuple[str, ...]) -> Callable[[str], list[str]]:
    """An argument type: names of the list, with commas between them."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}, got {name!r}")
        return names

    return parse
