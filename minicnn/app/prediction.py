"""The logits of images: normalised, predicted batch by batch, and averaged over the views of --tta."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import data
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.views import views
from minicnn.graph import run

IMAGES_AT_ONCE = 1000
"""Images that are normalised and predicted together."""


def predict_images(
    model: Any, x: np.ndarray, mean: Any, std: Any, progress: OnProgress = ignore,
    batch_size: int = 256, tta: str = "none", fuse: bool = True,
) -> np.ndarray:  # fmt: skip
    """Logits (N,K) of uint8 images (N,C,H,W), normalised a part at a time.

    With ``tta`` they are the means over the image's `views`.  ``progress`` is called before each part, and
    may raise.
    """
    graph = model.graph(training=False, fuse=fuse, input_shape=x.shape)
    options = {"batch_size": batch_size, "dtype": model.dtype}
    parts, step = [], max(IMAGES_AT_ONCE, batch_size)
    for start in range(0, len(x), step):
        progress(start, len(x))
        logits = [
            share * run.predict(graph, model.backend, data.normalize(view, mean, std), **options)
            for share, view in views(x[start : start + step], tta)
        ]
        parts.append(np.sum(logits, axis=0))
    return np.concatenate(parts)
