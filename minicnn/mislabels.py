"""``python -m minicnn.mislabels``: find training images whose labels may be wrong."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.mislabels import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
