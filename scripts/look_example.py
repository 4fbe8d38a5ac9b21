"""The example of docs/look.md: a short run, and what its network sees in two test images.

    python scripts/look_example.py

writes look-seen.png, look-neighbours.png, look-activations.png and look-filters.png in docs/images, and
each again for dark pages.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from themes import DARK  # noqa: E402 - after the path is set

from minicnn import data, look, train  # noqa: E402 - likewise

IMAGES = ROOT / "docs" / "images"
RUN = "--model vgg_small --epochs 5 --batch-size 64"
COMPUTE = ["--backend", "cpp", "--threads", "1"]
TEST_IMAGE = 0


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train.main([*shlex.split(RUN), *COMPUTE, "--out", str(folder / "run")])
        image = folder / "pullover.png"
        Image.fromarray(data.load(data.SAMPLE).test.x[TEST_IMAGE][0]).save(image)
        checkpoint = ["--checkpoint", str(folder / "run" / "best.safetensors")]
        for theme, settings in {"": {}, "-dark": DARK}.items():
            with matplotlib.rc_context(settings):
                look.main([*checkpoint, *COMPUTE, "--out", str(folder / "look"), str(image)])
            for name in ("1-seen", "1-neighbours", "1-activations", "filters"):
                drawn = folder / "look" / f"{name}.png"
                shutil.copy(drawn, IMAGES / f"look-{name.removeprefix('1-')}{theme}.png")


if __name__ == "__main__":
    main()
