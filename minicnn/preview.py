"""``python -m minicnn.preview``: draw what augmentation makes of some training images."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.preview import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
