"""``minicnn preview``: draw what augmentation makes of some training images."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicnn import data, plots
from minicnn.app import settings
from minicnn.app.command_line import Parser, make_console, whole_number
from minicnn.app.flags import add_flag
from minicnn.app.progress import shown
from minicnn.app.settings import MOST_SEED
from minicnn.backends import get_backend
from minicnn.data.augment import Augment, help_text
from minicnn.data.draws import EpochAugment, with_partners
from minicnn.data.split import balanced_subset


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.preview") -> None:
    """Draw the grid that the arguments ask for.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    augment = Augment.parse(args.augment)
    console = make_console()
    with shown(console, "reading images") as progress:
        dataset = data.load(
            args.dataset, data_dir=args.data_dir, image_size=args.image_size,
            resize=args.resize, validation=args.validation, group_by=args.group_by, limit_test=1,
            seed=args.seed, skip_bad=args.skip_bad, cache=args.cache, in_memory=settings.in_memory(args),
            progress=progress,
        )  # fmt: skip
    augment.check_size(*dataset.train.shape[1:])
    numbers = balanced_subset(dataset.train.y, args.images, args.seed)
    epochs = (augmented(dataset, numbers, augment, args.seed, epoch) for epoch in range(args.epochs))
    columns = [dataset.train.take(numbers), *epochs]
    titles = ["original", *(f"epoch {e}" for e in range(1, args.epochs + 1))]
    plots.grid(args.out, np.stack(columns, axis=1), titles, f"{dataset.name}, {augment}")
    console.print(f"{len(numbers)} images, {args.epochs} epochs: {args.out}")


def augmented(
    dataset: data.Dataset, numbers: NDArray[np.int64], augment: Augment, seed: int, epoch: int
) -> NDArray[np.uint8]:
    """The training images of these numbers as an epoch shows them, (N,C,H,W); they are mixed in turn."""
    images, mean, std = dataset.train, dataset.mean, dataset.std
    changes = EpochAugment(augment, len(images), images.shape[1:], seed, epoch)
    table = with_partners(changes.table(numbers))
    batch = get_backend("numpy").make_batch(images.x, images.locate(numbers), table, mean, std)
    pixels = 255 * (batch * std[:, None, None] + mean[:, None, None])
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--augment LIST [options]",
        "Draw a grid of training images: each as it is, and as the first epochs show it.",
    )
    for name in (
        "dataset", "data_dir", "image_size", "resize", "validation", "group_by", "skip_bad", "cache",
        "cache_above",
    ):  # fmt: skip
        add_flag(parser, name)
    parser.add_argument("--augment", required=True, metavar="LIST", help=help_text())
    for flag, count, what in (("images", 8, "images, the rows"), ("epochs", 9, "epochs, the columns")):
        parser.add_argument(
            f"--{flag}", type=whole_number(1), default=count, metavar="N", help=f"number of {what}"
        )
    parser.add_argument(
        "--seed",
        type=whole_number(0, MOST_SEED),
        default=0,
        metavar="N",
        help="of the changes: that of the training run, on all of the training images",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("preview.png"), metavar="FILE", help="the PNG file to write"
    )
    return parser
