"""The example of docs/look.md: a short run, and what its network sees in two test images.

    python scripts/look_example.py

writes look-seen.png, look-neighbours.png, look-activations.png and look-filters.png in docs/images.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout, installed or not

from minicnn import data, look, train  # noqa: E402 - after the path is set

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
        look.main([*checkpoint, *COMPUTE, "--out", str(folder / "look"), str(image)])
        for name in ("1-seen", "1-neighbours", "1-activations", "filters"):
            shutil.copy(folder / "look" / f"{name}.png", IMAGES / f"look-{name.removeprefix('1-')}.png")


if __name__ == "__main__":
    main()
