"""``python -m minicnn.verify``: check every operation of every backend on this machine against torch."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.verify import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
