"""Runs the tutorial's commands and records what they print and draw, so that the site can show it.

python scripts/site/record.py       writes docs/tutorial_run.json and its pictures in docs/images

tests/test_examples.py runs the same commands again, so an outdated tutorial fails the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from themes import DARK  # noqa: E402 - after the path is set

TUTORIAL = ROOT / "docs" / "tutorial.md"
RECORD = ROOT / "docs" / "tutorial_run.json"
RUN = "runs/clothes"
PICTURES = ("preview.png", f"{RUN}/curves.png", f"{RUN}/confusion_matrix.png")


def commands() -> list[str]:
    """The commands of the tutorial, in order."""
    return re.findall(r"^\{\{ run (.*) \}\}$", TUTORIAL.read_text(encoding="utf-8"), re.M)


def run(command: str, folder: Path) -> str:
    """Run the command in ``folder`` with this Python, and return what it prints.

    Raises CalledProcessError if it fails.
    """
    words = shlex.split(command)
    assert words[0] == "python", f"expected a python command, got {command}"
    words = [sys.executable, *words[1:]]
    words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def draw_dark(folder: Path) -> None:
    """Draw the pictures again for the site's dark pages."""
    import matplotlib

    from minicnn import plots, preview

    images, run = ROOT / "docs" / "images", folder / RUN
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    settings = json.loads((run / "config.json").read_text())
    (command,) = (one for one in commands() if one.startswith("python -m minicnn.preview "))
    with matplotlib.rc_context(DARK), contextlib.chdir(folder):
        title = f"{settings['model']} on {settings['dataset']}"
        plots.curves(images / "curves-dark.png", history, title)
        plots.confusion(images / "confusion_matrix-dark.png", json.loads((run / "report.json").read_text()))
        preview.main([*shlex.split(command)[3:], "--out", str(images / "preview-dark.png")])


def main() -> None:
    """Record every command in one empty folder."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for command in commands():
            print(command)
            runs.append({"command": command, "output": run(command, Path(folder)).rstrip()})
        for picture in PICTURES:
            shutil.copy(Path(folder) / picture, ROOT / "docs" / "images")
        draw_dark(Path(folder))
    aside = RECORD.with_suffix(".part")
    aside.write_text(json.dumps({"runs": runs}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(RECORD)


if __name__ == "__main__":
    main()
