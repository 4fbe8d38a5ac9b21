"""``python -m minicnn.predict``: say what is in image files."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.predict import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
