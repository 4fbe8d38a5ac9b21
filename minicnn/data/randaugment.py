"""RandAugment: two operations for each image, drawn alike from a list, at one magnitude.

Those operations are here that a row of a batch's table can ask for.  What differs from torchvision's is how
they are done: geometric ones together, in one warp with bilinear sampling, all in the table's order, and
without rounding in between.

Source: Cubuk, Zoph, Shlens and Le 2019, arXiv:1909.13719
Torch:  torchvision.transforms.RandAugment(num_ops=2, magnitude=N, num_magnitude_bins=31)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn.data.warp import Matrices, affine_matrices, one_after_another, shear_matrices

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
    "contrast", "posterize", "solarize",
)  # fmt: skip
GEOMETRIC = OPERATIONS[1:6]
AT_ONCE = 2
"""Operations an image."""
HIGHEST = 30
"""The magnitude at which each operation does the most."""


class RandAugment:
    """What is drawn for some images: ``amounts``, by operation the signed amount (N,), 0 where not drawn.

    Args: drawn (N,2,2) in [0, 1): for both operations which one it is, and its sign · size (H, W)
    """

    def __init__(self, magnitude: float, drawn: NDArray[np.float64], size: tuple[int, int]) -> None:
        self.share, self.size = magnitude / HIGHEST, size
        operation = (drawn[..., 0] * len(OPERATIONS)).astype(np.int64)
        sign = np.where(drawn[..., 1] < 0.5, -1.0, 1.0)
        self.signs = {
            name: np.where(operation == number, sign, 0).sum(axis=1)
            for number, name in enumerate(OPERATIONS)
        }
        self.drawn = {name: (operation == number).any(axis=1) for number, name in enumerate(OPERATIONS)}
        self.factors = {
            name: np.where(operation == number, 1 + 0.9 * self.share * sign, 1).prod(axis=1)
            for number, name in enumerate(OPERATIONS)
            if name in ("brightness", "color", "contrast")
        }

    @property
    def geometric(self) -> NDArray[np.bool_]:
        """(N,): whether a geometric operation is among those drawn."""
        return np.asarray(np.any([self.drawn[name] for name in GEOMETRIC], axis=0))

    def matrices(self) -> Matrices:
        height, width = self.size
        down, across = (int(150 / 331 * self.share * length) for length in (height, width))
        zero = np.zeros(len(self.signs["rotate"]))
        angle = 30 * self.share * self.signs["rotate"]
        turned = affine_matrices(angle, zero + 1, zero, zero, self.size)
        sheared = shear_matrices(
            0.3 * self.share * self.signs["shear_x"], 0.3 * self.share * self.signs["shear_y"],
            down * self.signs["translate_y"], across * self.signs["translate_x"],
        )  # fmt: skip
        return one_after_another(turned, sheared)

    def recolour(self, table: NDArray[Any]) -> None:
        """Put the operations that are not geometric into the rows."""
        for field, name in (
            ("brightness", "brightness"),
            ("contrast", "contrast"),
            ("saturation", "color"),
        ):
            table[field] *= self.factors[name].astype(np.float32)
        table["step"][self.drawn["posterize"]] = 2 ** int(np.rint(4 * self.share))
        table["threshold"][self.drawn["solarize"]] = 255 * (1 - self.share)
