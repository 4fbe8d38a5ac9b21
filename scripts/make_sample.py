"""Makes the bundled fashion-mnist-sample from the whole Fashion-MNIST.

    python scripts/make_sample.py [DIR]

DIR holds the four IDX files; by default it is where Debian's package dataset-fashion-mnist installs them.
"""

import sys
from pathlib import Path

from minicnn.data.dataset import sample_files
from minicnn.data.idx import write_idx
from minicnn.data.images import Images
from minicnn.data.split import balanced_subset
from minicnn.data.torchvision_sets import read_torchvision_set

SOURCE = Path("/usr/share/datasets/fashion-mnist")
SEED = 0
TRAIN_IMAGES, TEST_IMAGES = 10_000, 2_000


def draw(images: Images, count: int) -> Images:
    """``count`` images, equally many of each class, in their original order."""
    return images.subset(balanced_subset(images.y, count, SEED))


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    train, test, _ = read_torchvision_set("fashion-mnist", source, download=False)
    for split, part in {"train": draw(train, TRAIN_IMAGES), "t10k": draw(test, TEST_IMAGES)}.items():
        images, labels = sample_files(split)
        images.parent.mkdir(exist_ok=True)
        write_idx(images, part.x[:, 0])
        write_idx(labels, part.y.astype("uint8"))
        print(f"{images.name}: {len(part)} images, {images.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
