"""Scikit-learn's handwritten digits, 1,797 images of 8 by 8, which are part of its package."""

from __future__ import annotations

import string

import numpy as np

from minicnn.data.images import Images
from minicnn.data.split import stratified_split

TEST_SHARE = 0.2
_HIGHEST = 16  # a value counts the dark pixels in a block of 4 by 4


def read_digits(seed: int) -> tuple[Images, Images, list[str]]:
    """Train images, test images (a fifth of each class, chosen by ``seed``) and class names."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.rint(digits.images * (255 / _HIGHEST)).astype(np.uint8)[:, None]
    images = Images(x, digits.target.astype(np.int64))
    train, test = stratified_split(images.y, TEST_SHARE, seed)
    return images.subset(train), images.subset(test), list(string.digits)
