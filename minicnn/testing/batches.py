"""How make_batch is tested: tables, the same batch in torch, and a rule on the bits of all backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn.backends.base import Backend
from minicnn.ops.cast import bfloat16, to_bfloat16
from minicnn.ops.make_batch import Table, make_batch, unchanged
from minicnn.testing.tolerance import require

TURNED = ((0, -1, 7), (1, 0, 0))
"""A quarter turn of an image of 8 rows: the only rotation without rounding."""


def table_of(*rows: Mapping[str, Any]) -> Table:
    """Rows that change nothing but the fields named."""
    table = unchanged(len(rows))
    for row, fields in zip(table, rows, strict=True):
        row["reach"] = (-1, -1, 8, 8)
        for name, value in fields.items():
            row[name] = value
    return table


def run(b: Backend, t: Mapping[str, Any], a: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The batch in the dtype of its mean; there is no gradient."""
    mean, std = (b.to_numpy(t[name]) for name in ("mean", "std"))
    numbers = mean.astype(np.float64), std.astype(np.float64)
    y = b.make_batch(t["images"], a["rows"], a["table"], *numbers, dtype=mean.dtype.name)
    return {"y": y}, lambda _: {}


def run_torch(torch: Any, t: Mapping[str, Any], a: Mapping[str, Any]) -> dict[str, Any]:
    """The batch in float64, image by image."""
    images, mean, std, table = t["images"], t["mean"], t["std"], a["table"]
    made = []
    for number, row in zip(a["rows"], table, strict=True):
        x = _warped(torch, _moved(torch, images[int(number)].double(), row), row)
        x = (x * float(row["brightness"])).clamp(0, 255)
        contrast = float(row["contrast"])
        x = (contrast * x + (1 - contrast) * x.mean()).clamp(0, 255)
        if row["step"] != 1:
            x = torch.div(x, float(row["step"]), rounding_mode="floor") * float(row["step"])
        x = torch.where(x >= float(row["threshold"]), 255 - x, x)
        for name in ("cutout", "erase"):
            x = torch.where(_inside(torch, row[name], x), 255 * mean[:, None, None], x)
        made.append((x / 255 - mean[:, None, None]) / std[:, None, None])
    if not made:
        return {"y": images.double() + mean.sum()}
    mixed = []
    for x, row in zip(made, table, strict=True):
        other, share = made[row["partner"]], float(row["share"])
        mixed.append(torch.where(_inside(torch, row["patch"], x), other, share * x + (1 - share) * other))
    return {"y": torch.stack(mixed)}


def _moved(torch: Any, x: Any, row: Any) -> Any:
    if row["flip"]:
        x = x.flip(2)
    height, width = x.shape[1:]
    far = 2 * max(height, width)
    padded = torch.nn.functional.pad(x, (far, far, far, far))
    top, left = far + int(row["down"]), far + int(row["right"])
    return padded[:, top : top + height, left : left + width]


def _warped(torch: Any, x: Any, row: Any) -> Any:
    if not row["warped"]:
        return x
    height, width = x.shape[1:]
    down, across = torch.meshgrid(
        torch.arange(height).double(), torch.arange(width).double(), indexing="ij"
    )
    places = []
    for (along_x, along_y, start), low, high, length in zip(
        row["affine"].tolist(), row["reach"][[1, 0]], row["reach"][[3, 2]], (width, height), strict=True
    ):
        place = (along_x * across + along_y * down + start).clamp(float(low), float(high))
        places.append(2 * place / (length - 1) - 1)
    grid = torch.stack(places, dim=2)[None]
    return torch.nn.functional.grid_sample(x[None], grid, align_corners=True)[0]


def _inside(torch: Any, box: Any, x: Any) -> Any:
    top, left, bottom, right = (int(edge) for edge in box)
    rows, columns = torch.arange(x.shape[1])[:, None], torch.arange(x.shape[2])
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


# ---- the rule ------------------------------------------------------------------------------------------


def random_table(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Table:
    """Rows in which every field says something in about a half."""
    table = unchanged(count)

    def some(name: str, values: NDArray[Any]) -> None:
        rows = rng.random(count) < 0.5
        table[name][rows] = values[rows]

    def boxes() -> NDArray[Any]:
        first, second = (rng.integers(-3, np.add(size, 4), (count, 2)) for _ in range(2))
        return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)

    some("flip", np.ones(count))
    for name, length in zip(("down", "right"), size, strict=True):
        some(name, rng.integers(-length - 2, length + 3, count))
    some("warped", np.ones(count))
    table["affine"] = rng.normal([[1, 0, 1], [0, 1, 1]], 0.5, (count, 2, 3))
    table["affine"][:2] *= 1e38  # places without a number
    top_left, bottom_right = (np.clip(part, -1, size) for part in np.split(boxes(), 2, axis=1))
    table["reach"] = (-1, -1, *size)
    some("reach", np.concatenate([top_left, bottom_right], axis=1))
    for name in ("brightness", "contrast", "saturation"):
        some(name, rng.uniform(0, 2, count))
    some("step", 2.0 ** rng.integers(1, 5, count))
    some("threshold", rng.uniform(0, 256, count))
    for name in ("cutout", "erase", "patch"):
        some(name, boxes())
    table["partner"] = rng.integers(0, count, count)
    some("share", rng.uniform(0, 1, count))
    return table


def has_the_bits_of_numpys_images_one_by_one(channels: int, backend: Backend, dtype: np.dtype) -> None:
    """Whatever the table says, and whatever else is in the batch."""
    rng = np.random.default_rng(channels)
    size = 11, 13 + 12 * channels
    images = rng.integers(0, 256, (7, channels, *size), dtype=np.uint8)
    rows, table = rng.integers(0, 7, 48), random_table(rng, 48, size)
    mean, std = rng.uniform(0.2, 0.7, (2, channels))
    arguments = backend.asarray(images), rows, table, mean, std
    batch = backend.make_batch(*arguments, dtype=dtype.name)
    got = backend.to_numpy(batch)
    require(got.dtype == dtype, f"expected dtype {dtype}, got {got.dtype}")
    if dtype == np.float32:
        half = backend.to_numpy(backend.make_batch(*arguments, dtype="bfloat16"))
        equal = half.dtype == bfloat16() and np.array_equal(half.view("u2"), to_bfloat16(got).view("u2"))
        require(equal, "the bfloat16 batch is not the float32 one, rounded")
    for n, partner in enumerate(table["partner"]):
        pair = table[[n, partner]]
        pair["partner"] = 1
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = make_batch(images, rows[[n, partner]], pair, mean, std, dtype=dtype.name)[0]
        different = (got[n] != wanted).sum()
        require(
            different == 0, f"image {n}: {different} of {wanted.size} values differ; its row is {table[n]}"
        )
