"""Makes a folder of pictures from the bundled sample, so that there is something to train on.

python examples/make_folder.py pictures unseen

writes pictures/CLASS/000.png ... from the training images, and
unseen/CLASS.png, one test image of each class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from minicnn import data


def main() -> None:
    """Write the PNG files and print how many they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets one folder for each class")
    parser.add_argument("unseen", type=Path, help="gets one image of each class that is not in FOLDER")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="images of each class")
    args = parser.parse_args()
    dataset = data.load("fashion-mnist-sample")
    args.unseen.mkdir(parents=True, exist_ok=True)
    for label, class_name in enumerate(dataset.class_names):
        name = class_name.replace("/", "-").replace(" ", "-").lower()
        (args.folder / name).mkdir(parents=True, exist_ok=True)
        for i, place in enumerate(np.flatnonzero(dataset.train.y == label)[: args.images]):
            save(args.folder / name / f"{i:03}.png", dataset.train.x[place])
        save(args.unseen / f"{name}.png", dataset.test.x[np.flatnonzero(dataset.test.y == label)[0]])
    print(f"{args.folder}: {len(dataset.class_names)} classes, {args.images} images each")


def save(path: Path, image: np.ndarray) -> None:
    """Write a grey image, bytes of shape (1,H,W)."""
    Image.fromarray(image[0]).save(path)


if __name__ == "__main__":
    main()
