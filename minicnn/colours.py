"""Numbers as colours: maps, filters and differences as images uint8 (H,W,3), by matplotlib's scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def bright(values: np.ndarray, top: float | None = None) -> Pixels:
    """From dark at 0 and below to yellow at ``top``, by default the largest value; (H,W) -> (H,W,3)."""
    top = float(values.max()) if top is None else top
    return _scale("viridis", values / (top or 1.0))


def signed(values: np.ndarray, limit: float | None = None) -> Pixels:
    """Blue below 0, white at 0, red above it; full at ``limit``, by default the largest absolute value."""
    limit = float(np.abs(values).max()) if limit is None else limit
    return _scale("RdBu_r", (values / (limit or 1.0) + 1) / 2)


def filter_pixels(weight: np.ndarray, limit: float) -> Pixels:
    """A filter (C,KH,KW): in colour around grey if C is 3, else the `signed` mean over C."""
    if len(weight) == 3:
        return _bytes((weight.transpose(1, 2, 0) / (limit or 1.0) + 1) / 2)
    return signed(weight.mean(axis=0), limit)


def filter_limit(weight: np.ndarray) -> float:
    """The largest absolute value that `filter_pixels` shows of filters (...,C,KH,KW)."""
    shown = weight if weight.shape[-3] == 3 else weight.mean(axis=-3)
    return float(np.abs(shown).max())


def rgb(image: Pixels) -> Pixels:
    """An image (C,H,W) with C 1 or 3 as (H,W,3)."""
    return np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h,w) at the size (H,W) of its image, bilinear."""
    from PIL import Image

    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def over(image: Pixels, colours: Pixels, share: float = 0.55) -> Pixels:
    """Colours (H,W,3) laid over the grey of an image (C,H,W)."""
    grey = image.mean(axis=0, dtype=np.float64)[..., None]
    return _bytes((share * colours + (1 - share) * grey) / 255)


def _scale(name: str, shares: np.ndarray) -> Pixels:
    import matplotlib

    return _bytes(matplotlib.colormaps[name](np.clip(np.nan_to_num(shares), 0, 1))[..., :3])


def _bytes(shares: np.ndarray) -> Pixels:
    return np.asarray(np.rint(255 * np.clip(shares, 0, 1)), np.uint8)
