"""The logits of images: normalised, predicted batch by batch, and averaged over the views of --tta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minicnn import data
from minicnn.data.views import views
from minicnn.graph import run

IMAGES_AT_ONCE = 1000
"""Images that are normalised and predicted together."""


class NotFinite(ValueError):
    """Finite weights gave logits that are not: they are too large."""


def predict_images(
    model: Any, x: np.ndarray, mean: Any, std: Any, check: Callable[[], None] = lambda: None,
    batch_size: int = 256, tta: str = "none", fuse: bool = True,
) -> np.ndarray:  # fmt: skip
    """Logits (N,K) of uint8 images (N,C,H,W), normalised a part at a time.

    With ``tta`` they are the means over the image's `views`.  ``check`` is called before each part, and
    may raise.

    Raises: NotFinite if a logit is infinite or NaN
    """
    graph = model.graph(training=False, fuse=fuse, input_shape=x.shape)
    options = {"batch_size": batch_size, "dtype": model.dtype}
    parts, step = [], max(IMAGES_AT_ONCE, batch_size)
    for start in range(0, len(x), step):
        check()
        with np.errstate(over="ignore", invalid="ignore"):  # the result shows it
            logits = [
                share * run.predict(graph, model.backend, data.normalize(view, mean, std), **options)
                for share, view in views(x[start : start + step], tta)
            ]
            parts.append(np.sum(logits, axis=0))
    found = np.concatenate(parts)
    finite = int(np.isfinite(found).all(axis=1).sum())
    if finite < len(found):
        raise NotFinite(
            f"the model gives {len(found) - finite} of {len(found)} images numbers that are not finite"
        )
    return found
