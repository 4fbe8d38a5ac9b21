"""What all commands share: how arguments are read, where output goes, and how errors end a command."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from minicnn.backends import BackendUnavailable, fastest, get_backend
from minicnn.threads import set_num_threads

if TYPE_CHECKING:
    from rich.console import Console

EXIT_ERROR = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 130
EXIT_STATUS = (
    f"exit status: 0 if all went well, 1 if a check of verify failed, {EXIT_ERROR} for wrong use or input, "
    f"{EXIT_DIVERGED} if training diverged, {EXIT_INTERRUPTED} when interrupted"
)


class Interrupted(Exception):
    """The user stopped the command; the message, if any, says how to go on."""


class Diverged(ValueError):
    """Loss or weights are no longer finite; the message suggests what to change."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default that there is; where there is none, the help text says what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and complains in one line.

    ``prog`` is the command as the user called it, such as ``minicnn train``; the help's usage line begins
    with it.
    """

    def __init__(self, prog: str, arguments: str, description: str) -> None:
        super().__init__(
            prog=prog,
            usage=f"%(prog)s {arguments}",
            description=description,
            epilog=EXIT_STATUS,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        _print_error(f"{message} (--help lists all options)")
        sys.exit(EXIT_ERROR)


def exit_with(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit, after an error with one line ``error: ...`` on stderr; see EXIT_STATUS."""
    try:
        command()
        sys.stdout.flush()
    except (Interrupted, KeyboardInterrupt) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except (
        BrokenPipeError
    ):  # the program that reads the output, such as `head`, has ended; rich exits with 1 as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(EXIT_ERROR)
    except (ValueError, BackendUnavailable) as error:
        _print_error(str(error))
        sys.exit(EXIT_DIVERGED if isinstance(error, Diverged) else EXIT_ERROR)
    sys.exit(0)


def make_console(*, stderr: bool = False) -> Console:
    """Where results and progress go: stdout, or stderr, with colours only in a terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr)


def choose_backend(args: argparse.Namespace, console: Console) -> str:
    """Follow --backend, --threads and --tf32; print and return the name of the backend that computes.

    Raises: BackendUnavailable with the reason
    """
    backend, why = fastest() if args.backend == "auto" else (get_backend(args.backend), "as asked")
    if args.threads is not None:
        set_num_threads(args.threads)
    if args.tf32 and backend.name == "cuda":
        from minicnn.backends.cuda_backend import allow_tf32

        allow_tf32(backend, True)
    console.print(f"backend: {backend.label}, {why}")
    return backend.name


def whole_number(least: int) -> Callable[[str], int]:
    """An argument type: an integer of at least ``least``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
        return value

    return parse


def number(least: float, below: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """An argument type: a number from ``least`` (or ``above`` it) to under ``below``."""
    wanted = f"{'above' if above else 'of at least'} {least:g}"
    if below < math.inf:
        wanted += f" and below {below:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least < value if above else least <= value) or not value < below:
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text}")
        return value

    return parse


def _print_error(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
