"""``python -m minicnn.predict``: say what is in image files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from minicnn import cli


def main(argv: list[str] | None = None) -> None:
    """Classify the images that the arguments name.  Raises what `cli.run` turns into one line."""
    args = _parser().parse_args(argv)
    from minicnn import data, metrics
    from minicnn.experiment import predict_images
    from minicnn.saved_model import load_model

    # stdout is for the answers alone.
    backend = cli.choose_backend(args, cli.make_console(stderr=True))
    saved, model = load_model(args.checkpoint, backend)
    # All images are read before anything is printed: an unreadable one fails the whole command.
    channels, height, width = saved.image_shape
    images = [data.read_image(path, channels=channels, size=(height, width)) for path in args.images]
    tta = args.tta or saved.config.get("tta", "none")
    logits = predict_images(
        model, np.stack(images), saved.mean, saved.std, tta=tta, fuse=not saved.config.get("no_fuse", False)
    )
    probabilities = metrics.softmax(logits)
    answers = [_best(row, saved.class_names, args.top) for row in probabilities]
    if args.json:
        rows = zip(args.images, answers, strict=True)
        print(json.dumps([{"image": str(path), "predictions": answer} for path, answer in rows], indent=2))
        return
    for path, answer in zip(args.images, answers, strict=True):
        tops = ", ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in answer)
        print(f"{path}: {tops}")


def _best(probabilities: np.ndarray, names: list[str], count: int) -> list[dict[str, str | float]]:
    """The likeliest classes, best first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class": names[i], "probability": float(probabilities[i])} for i in order]


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        "predict",
        "--checkpoint FILE [options] IMAGE...",
        "Classify image files with a trained model; they are preprocessed as in training.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="image file: png, jpg, gif, bmp, webp, tiff or ppm",
    )
    cli.add_checkpoint(parser)
    parser.add_argument(
        "--top", type=cli.whole_number(1), default=3, metavar="N", help="classes to show an image"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    return parser


if __name__ == "__main__":
    cli.run(main)
