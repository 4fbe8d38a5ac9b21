"""``python -m minicnn.doctor``: show what each backend has, lacks and needs on this machine."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.doctor import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
