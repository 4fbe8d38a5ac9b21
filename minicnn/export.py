"""``python -m minicnn.export``: write a trained model for other programs."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.export import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
