"""``python -m minicnn.train``: train a model on a dataset, with checkpoints, metrics and plots."""

from minicnn.app.command_line import exit_with
from minicnn.app.commands.train import main

__all__ = ["main"]

if __name__ == "__main__":
    exit_with(main)
