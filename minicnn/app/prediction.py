"""The logits of images: normalised, predicted batch by batch, and averaged over the views of --tta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minicnn import data
from minicnn.data.views import views
from minicnn.folding import folded

IMAGES_AT_ONCE = 1000
"""Images that are normalised and predicted together."""


def predict_images(
    model: Any, x: np.ndarray, mean: Any, std: Any, check: Callable[[], None] = lambda: None,
    batch_size: int = 256, tta: str = "none",
) -> np.ndarray:  # fmt: skip
    """Logits (N,K) of uint8 images (N,C,H,W), normalised a part at a time.

    With ``tta`` they are the means over the image's `views`.  ``check`` is called before each part, and
    may raise.
    """
    model, parts, step = folded(model, x.shape), [], max(IMAGES_AT_ONCE, batch_size)
    for start in range(0, len(x), step):
        check()
        logits = [
            share * model.predict(data.normalize(view, mean, std), batch_size=batch_size)
            for share, view in views(x[start : start + step], tta)
        ]
        parts.append(np.sum(logits, axis=0))
    return np.concatenate(parts)
