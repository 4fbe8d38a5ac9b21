"""``python -m minicnn COMMAND``: the same as ``minicnn COMMAND``."""

import sys

from minicnn.app.command_line import exit_with
from minicnn.app.main import run_command

if __name__ == "__main__":
    exit_with(lambda: run_command(sys.argv[1:], "python -m minicnn"))
