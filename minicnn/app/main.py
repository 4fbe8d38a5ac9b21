"""The command ``minicnn``: it finds the command that its first argument names, and runs it."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import NoReturn

from minicnn import __version__
from minicnn.app.command_line import EXIT_STATUS, Parser, exit_with

COMMANDS = {
    "train": "train an image classifier; metrics, checkpoints, report and plots go to a folder",
    "evaluate": "test a trained model and report on each class",
    "predict": "classify image files with a trained model",
    "export": "write a trained model for other programs, and verify that it predicts the same",
    "look": "show what a trained model sees in images: maps, Grad-CAM, occlusion, nearest images",
    "mislabels": "find training images whose labels may be wrong",
    "preview": "draw what augmentation makes of some training images",
    "doctor": "show what each backend has, lacks and needs on this machine",
    "verify": "check every operation of every backend against torch and the contract",
}
"""The commands, each with what it does; their bodies are the modules of `minicnn.app.commands`."""


def main() -> NoReturn:
    """Run the console script ``minicnn``."""
    exit_with(lambda: run_command(sys.argv[1:], "minicnn"))


def run_command(argv: list[str], prog: str) -> None:
    """Run the command that the first argument names; ``prog`` is what the user called.

    The command's module is imported only now, so that --version and --help answer at once.
    """
    if argv and argv[0] in COMMANDS:
        module = importlib.import_module(f"minicnn.app.commands.{argv[0]}")
        module.main(argv[1:], f"{prog} {argv[0]}")
        return
    parser = _parser(prog)
    if argv and argv[0] in ("-h", "--help", "--version"):
        parser.parse_args(argv[:1])
    got = f", got {argv[0]}" if argv else ""
    parser.error(f"expected a command, one of {', '.join(COMMANDS)}{got}")


def _parser(prog: str) -> argparse.ArgumentParser:
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    parser = Parser(prog, "COMMAND [options]", "Train and use small image classifiers.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        ["commands:", *lines, "", f"{prog} COMMAND --help lists a command's options.", EXIT_STATUS]
    )
    parser.add_argument("--version", action="version", version=f"minicnn {__version__}")
    return parser
