"""Other programs that are asked what they are.

setup.py loads this file on its own, so it imports nothing of minicnn.
"""

from __future__ import annotations

import os
import subprocess

SECONDS_TO_ANSWER = 60.0
"""How long a program may take."""


def ask(*words: str) -> subprocess.CompletedProcess[str] | None:
    """Run a program with all its messages in English; None if it cannot be run, or hangs."""
    try:
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=SECONDS_TO_ANSWER,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None


def answer(*words: str) -> str | None:
    """What a program prints to stdout; None if it fails, hangs or cannot be run."""
    done = ask(*words)
    return done.stdout if done and done.returncode == 0 else None
