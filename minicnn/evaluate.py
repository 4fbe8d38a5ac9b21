"""``python -m minicnn.evaluate``: test a checkpoint and report accuracy, precision, recall, F1."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.evaluate import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
