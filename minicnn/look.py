"""``python -m minicnn.look``: show what a trained model sees in images."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.look import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
