"""Exercises: chapter 1, pixels and classes."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose as same


def brightness(image: np.ndarray) -> np.ndarray:
    """An image (H,W) holds whole numbers from 0 to 255. Return the same image with values from 0 to 1."""
    return image / 255


def check_brightness(answer):
    same(answer(np.array([[0, 51], [255, 102]], np.uint8)), [[0, 0.2], [1, 0.4]])


def mirrored(image: np.ndarray) -> np.ndarray:
    """Mirror an image (H,W): its left column becomes its right one."""
    return image[:, ::-1]


def check_mirrored(answer):
    same(answer(np.array([[1, 2, 3], [4, 5, 6]])), [[3, 2, 1], [6, 5, 4]])


def normalised(images: np.ndarray) -> np.ndarray:
    """Subtract the mean of all values from images (N,H,W), then divide by the standard deviation of
    all values.
    """
    return (images - images.mean()) / images.std()


def check_normalised(answer):
    images = np.random.default_rng(0).uniform(20, 200, (5, 4, 3))
    result = answer(images)
    same([result.mean(), result.std()], [0, 1], atol=1e-12)
    same(result, (images - images.mean()) / images.std())


def share_right(called: np.ndarray, labels: np.ndarray) -> float:
    """Which share of the images is called by its right name? Both arrays hold one class number for
    each image.
    """
    return float((called == labels).mean())


def check_share_right(answer):
    same(answer(np.array([1, 2, 3, 3]), np.array([1, 2, 0, 3])), 0.75)
