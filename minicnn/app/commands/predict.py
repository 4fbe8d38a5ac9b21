"""``minicnn predict``: say what is in image files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from minicnn import data, metrics
from minicnn.app.command_line import Parser, choose_backend, make_console, whole_number
from minicnn.app.prediction import predict_images
from minicnn.app.settings import Config, add_checkpoint_flags
from minicnn.files import to_json
from minicnn.saved_model import images_at_once, load_model


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.predict") -> None:
    """Classify the images that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    # stdout is for the answers alone.
    backend = choose_backend(args, make_console(stderr=True))
    saved, model = load_model(args.checkpoint, backend)
    # All images are read before anything is printed: an unreadable one fails the whole command.
    channels, height, width = saved.image_shape
    images = [data.read_image(path, channels=channels, size=(height, width)) for path in args.images]
    config = Config.of_checkpoint(args.checkpoint, saved)
    logits = predict_images(
        model,
        np.stack(images),
        saved.mean,
        saved.std,
        batch_size=images_at_once(model, saved.image_shape),
        tta=args.tta or config.tta,
        fuse=not config.no_fuse,
    )
    probabilities = metrics.softmax(logits)
    answers = [_best(row, saved.class_names, args.top) for row in probabilities]
    if args.json:
        rows = zip(args.images, answers, strict=True)
        print(to_json([{"image": str(path), "predictions": answer} for path, answer in rows], indent=2))
        return
    for path, answer in zip(args.images, answers, strict=True):
        tops = ", ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in answer)
        print(f"{path}: {tops}")


def _best(probabilities: np.ndarray, names: list[str], count: int) -> list[dict[str, str | float]]:
    """The likeliest classes, best first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class": names[i], "probability": float(probabilities[i])} for i in order]


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
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
    add_checkpoint_flags(parser)
    parser.add_argument(
        "--top", type=whole_number(1), default=3, metavar="N", help="classes to show an image"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    return parser
