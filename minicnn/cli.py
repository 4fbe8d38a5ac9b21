"""What the commands share: how arguments are read, and how errors are told."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from minicnn import data
from minicnn.backends import BackendUnavailable, choice, get_backend
from minicnn.data.views import TTA
from minicnn.threads import set_num_threads

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
    """An argument parser that shows defaults and complains in one line."""

    def __init__(self, command: str, arguments: str, description: str) -> None:
        super().__init__(
            prog=f"python -m minicnn.{command}",
            usage=f"%(prog)s {arguments}",
            description=description,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        _tell(f"{message} (--help lists all options)")
        sys.exit(EXIT_ERROR)


def run(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0, 2 with one line ``error: ...`` on stderr, 130 when interrupted."""
    try:
        command()
        sys.stdout.flush()
    except (Interrupted, KeyboardInterrupt) as stop:
        _print(str(stop) or "interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader, `head` say, has what it wanted; rich exits with 1 as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(EXIT_ERROR)
    except (ValueError, BackendUnavailable) as error:
        _tell(str(error))
        sys.exit(EXIT_ERROR)
    sys.exit(0)


def make_console(*, stderr: bool = False) -> Console:
    """Where results and progress go: stdout, or stderr, with colours only in a terminal."""
    return Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr)


def choose_backend(args: argparse.Namespace, console: Console) -> str:
    """The name of the backend that --backend asks for, said aloud; --threads is set.

    Raises: BackendUnavailable with the reason
    """
    name, why = choice() if args.backend == "auto" else (args.backend, "as asked")
    backend = get_backend(name)
    if args.threads is not None:
        set_num_threads(args.threads)
    if args.tf32 and name == "cuda":
        from minicnn.backends.cuda_backend import allow_tf32

        allow_tf32(True)
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


def add_backend(parser: argparse._ActionsContainer) -> None:
    """Add --backend, --threads and --tf32."""
    parser.add_argument(
        "--backend", choices=("auto", "numpy", "cpp", "cuda"), default="auto",
        help="what computes: readable NumPy, compiled C++, an NVIDIA GPU, or the fastest there is",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=whole_number(1), metavar="N", help="CPU threads to use (default: all cores)"
    )
    parser.add_argument(
        "--tf32", action="store_true",
        help="let cuda's products use tensor cores, which round their factors to 10 bits of mantissa",
    )  # fmt: skip


def add_data(parser: argparse._ActionsContainer) -> None:
    """Add --dataset, --data-dir and --image-size."""
    parser.add_argument(
        "--dataset", default=data.SAMPLE, metavar="NAME",
        help=f"{', '.join(data.names())}, or folder:DIR with one folder of images a class",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where datasets lie, and are downloaded to (default: ./data)"
    )
    parser.add_argument(
        "--image-size", type=whole_number(1), metavar="N",
        help="scale images to N by N pixels (default: as they are)",
    )  # fmt: skip


def add_tta(parser: argparse._ActionsContainer, default: str | None) -> None:
    """Add --tta."""
    parser.add_argument(
        "--tta", choices=TTA, default=default,
        help="test-time augmentation: flip averages the logits of each image and its mirror image, "
        "flip-shift also of both moved by a pixel along the diagonal"
        + ("" if default else " (default: as in training)"),
    )  # fmt: skip


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint and the flags of add_backend, for the commands that use a trained model."""
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE",
        help="the trained model: best.safetensors or checkpoint.safetensors of a run",
    )  # fmt: skip
    add_tta(parser, None)
    add_backend(parser)


def _tell(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def _print(message: str) -> None:
    print(message, file=sys.stderr)
