"""Makes 300 coloured pictures of four kinds, sorted into train/ and val/ as many collections of photos are.

python examples/make_photos.py photos kept

writes photos/train/KIND/000.jpg ... and photos/val/KIND/000.jpg ..., and
kept/KIND/000.jpg ..., a few more of each kind that are in neither.
Each picture is a disc, ring, square or cross of random size and place on a noisy ground.  The kinds differ
in colour too, but not always.  As in other collections, some files are broken or are no pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"cross": (190, 70, 70), "disc": (70, 170, 70), "ring": (70, 70, 190), "square": (180, 170, 60)}
SIDE = 32


def shape(kind: str, across: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    """Where the shape is: bool, for distances (H,W) from its middle."""
    distance = np.hypot(across, down)
    width = np.maximum(abs(across), abs(down))
    return {
        "cross": (np.minimum(abs(across), abs(down)) < radius / 3) & (width < radius),
        "disc": distance < radius,
        "ring": (distance < radius) & (distance > 0.6 * radius),
        "square": width < 0.9 * radius,
    }[kind]


def photo(kind: str, rng: np.random.Generator) -> Image.Image:
    """One picture of a kind."""
    down, across = np.indices((SIDE, SIDE)) - rng.uniform(0.35, 0.65, (2, 1, 1)) * SIDE
    there = shape(kind, across, down, rng.uniform(5, 11))
    pixels = np.where(there[..., None], rng.normal(COLOURS[kind], 45), rng.uniform(0, 255, 3))
    return Image.fromarray(np.clip(pixels + rng.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8))


def spoil(folder: Path) -> None:
    """Break a file of each kind, as cards and downloads do, and leave what is no picture."""
    cut, empty, page, flipped = (folder / kind / f"{i:03}.jpg" for i, kind in enumerate(COLOURS, 7))
    cut.write_bytes(cut.read_bytes()[:400])
    empty.write_bytes(b"")
    page.write_text("<html>The picture is no longer here.</html>")
    flipped.write_bytes(flipped.read_bytes()[::-1])
    (folder / "disc" / "notes.txt").write_text("taken in May")
    (folder / "disc" / "Thumbs.db").write_bytes(bytes(100))


def main() -> None:
    """Write the JPEG files and print how many they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets train/ and val/")
    parser.add_argument("kept", type=Path, help="gets pictures that are in neither")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for folder, count in ((args.folder / "train", 60), (args.folder / "val", 15), (args.kept, 10)):
        for kind in COLOURS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                photo(kind, rng).save(folder / kind / f"{i:03}.jpg", quality=90)
        print(f"{folder}: {len(COLOURS)} kinds, {count} pictures each")
    spoil(args.folder / "train")


if __name__ == "__main__":
    main()
