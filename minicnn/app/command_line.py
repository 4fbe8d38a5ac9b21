"""What all commands share: how arguments are read, where output goes, and how errors end a command."""

from __future__ import annotations

import argparse
import codecs
import io
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

from minicnn.backends import BackendUnavailable, fastest, get_backend
from minicnn.text import escape, one_line, printable_lines
from minicnn.threads import set_num_threads

if TYPE_CHECKING:
    from rich.console import Console

MOST = 1_000_000_000
"""The largest number that a flag takes, unless it says otherwise."""

EXIT_ERROR = 2
EXIT_DIVERGED = 3
EXIT_UNREADABLE = 4
EXIT_INTERRUPTED = 130
EXIT_STATUS = (
    f"exit status: 0 if all went well, 1 if a check of verify failed, {EXIT_ERROR} for wrong use or input, "
    f"{EXIT_DIVERGED} if training diverged, {EXIT_UNREADABLE} if predict or look could not read some "
    f"of the images, {EXIT_INTERRUPTED} when interrupted"
)


class Interrupted(Exception):
    """The user stopped the command; the message, if any, says how to go on."""


class Told(Exception):
    """Another process tells what is wrong; this one only ends."""


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
        print_error(f"{message} (--help lists all options)")
        sys.exit(EXIT_ERROR)


def exit_with(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit, after an error with one line ``error: ...`` on stderr; see EXIT_STATUS.

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
    except Told:
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:  # what reads the output, such as `head`, has ended; rich exits with 1 as well
        _drop_unwritten()
        sys.exit(1)
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        _drop_unwritten()
        sys.exit(EXIT_ERROR)
    except (ValueError, BackendUnavailable) as error:
        print_error(str(error))
        sys.exit(EXIT_DIVERGED if isinstance(error, Diverged) else EXIT_ERROR)
    except BaseException as error:
        if (limit := _limit_reached(error)) is None:
            raise
        print_error(limit)
        sys.exit(EXIT_ERROR)
    sys.exit(0)


def _limit_reached(error: BaseException) -> str | None:
    """What was too much for this machine, and for which function; None if the error is of another kind."""
    text = str(error).partition("\n")[0]
    if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", text):
        what = "not enough memory"
    elif isinstance(error, RecursionError):
        what = "something is nested too deep"
    elif isinstance(error, OverflowError):
        what = "a number is too large"
    elif type(error).__name__ == "PanicException":  # of a library written in Rust, and no Exception
        what = "a library failed"
    else:
        return None
    frames = traceback.walk_tb(error.__traceback__)
    own = [frame for frame, _ in frames if frame.f_globals["__name__"].startswith("minicnn.")]
    where = f", in {own[-1].f_globals['__name__']}.{own[-1].f_code.co_name}" if own else ""
    return f"{what}{where}{f': {text}' if text else ''}"


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
    """Follow --backend and --threads; print and return the name of the backend that computes.

    Raises: BackendUnavailable with the reason
    """
    backend, why = fastest() if args.backend == "auto" else (get_backend(args.backend), "as asked")
    if args.threads is not None:
        set_num_threads(args.threads)
    console.print(f"backend: {backend.label}, {why}")
    return backend.name


def whole_number(least: int, most: int = MOST) -> Callable[[str], int]:
    """An argument type: an integer from ``least`` to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        for wrong, bound in ((value < least, f"at least {least}"), (value > most, f"at most {most}")):
            if wrong:
                raise argparse.ArgumentTypeError(f"expected a whole number of {bound}, got {text:.40}")
        return value

    return parse


def power_of_two(text: str) -> int:
    """An argument type: 1, 2, 4, 8 or another power of two."""
    value = whole_number(1)(text)
    if value & (value - 1):
        raise argparse.ArgumentTypeError(f"expected a power of two, got {text:.40}")
    return value


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
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text:.40}")
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
