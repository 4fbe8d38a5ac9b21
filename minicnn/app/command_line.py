"""What all commands share: how arguments are read, where output goes, and how errors end a command."""

from __future__ import annotations

import argparse
import codecs
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

from minicnn.backends import BackendUnavailable, choice, get_backend
from minicnn.text import escape, one_line, printable_lines
from minicnn.threads import set_num_threads

if TYPE_CHECKING:
    from rich.console import Console

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class Interrupted(Exception):
    """The user stopped the command; the message, if any, says how to go on."""


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
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        print_error(f"{message} (--help lists all options)")
        sys.exit(EXIT_ERROR)


def exit_with(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0, 2 with one line ``error: ...`` on stderr, 130 when interrupted.

    A command that ends with a status of its own exits with that.
    """
    _prepare_streams()
    try:
        with _log_on_stderr():
            try:
                command()
            finally:
                sys.stdout.flush()
    except (Interrupted, KeyboardInterrupt) as stop:
        print(printable_lines(str(stop)) or "interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # what reads the output, such as `head`, has ended; rich exits with 1 as well
        _drop_unwritten()
        sys.exit(1)
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        _drop_unwritten()
        sys.exit(EXIT_ERROR)
    except (ValueError, BackendUnavailable) as error:
        print_error(str(error))
        sys.exit(EXIT_ERROR)
    sys.exit(0)


def print_error(message: str) -> None:
    """One line ``error: ...`` on stderr, whatever the message holds."""
    print(f"error: {one_line(message)}", file=sys.stderr)


def warn(message: str) -> None:
    """One line ``warning: ...`` on stderr, whatever the message holds."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Where results and progress go: stdout, or stderr, or nowhere; with colours only in a terminal."""
    from minicnn.app.console import PlainConsole

    return PlainConsole(soft_wrap=True, stderr=stderr, quiet=quiet)


def add_quiet_flag(parser: argparse._ActionsContainer) -> None:
    """Add --quiet, for commands that print more than results and errors."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but results and errors")


def make_notes(args: argparse.Namespace, *, stderr: bool = False) -> Console:
    """The console for what is neither result nor error; --quiet silences it, and the library's log."""
    for handler in logging.getLogger("minicnn").handlers:
        if args.quiet and isinstance(handler, _LogHandler):
            handler.setLevel(logging.WARNING)
    return make_console(stderr=stderr, quiet=args.quiet)


def choose_backend(args: argparse.Namespace, console: Console) -> str:
    """Follow --backend, --threads and --tf32; print and return the name of the backend that computes.

    Raises: BackendUnavailable with the reason
    """
    name, why = choice() if args.backend == "auto" else (args.backend, "as asked")
    backend = get_backend(name)
    if args.threads is not None:
        set_num_threads(args.threads)
    if args.tf32 and name == "cuda":
        from minicnn.backends.cuda_backend import allow_tf32

        allow_tf32(backend, True)
    console.print(f"backend: {backend.label}, {why}")
    return name


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


class _LogHandler(logging.StreamHandler[TextIO]):
    """Shows what the library logs, in lines that begin with ``minicnn:``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"minicnn: {printable_lines(record.getMessage())}"


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    log, handler = logging.getLogger("minicnn"), _LogHandler(sys.stderr)
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


_STAND_INS = {"×": "x", "…": "..."}


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """What is printed for characters that the stream's encoding lacks: plain ones, or escapes."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(character) or escape(character) for character in lacking), error.end


def _prepare_streams() -> None:
    """Make the standard streams take any text, also where the terminal is ASCII or the caller closed them.

    In place of a closed one os.devnull is opened: another file would get its number, and its output.
    """
    codecs.register_error("minicnn", _stand_in)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="minicnn")


def _drop_unwritten() -> None:
    """Give up what stdout does not take, so that Python does not try again, and complain, as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
