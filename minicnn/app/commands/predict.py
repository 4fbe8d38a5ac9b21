"""``minicnn predict``: say what is in image files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import calibration, data, metrics
from minicnn.app.command_line import Parser, choose_backend, make_console, number, whole_number
from minicnn.app.prediction import predict_images
from minicnn.app.settings import Config, add_checkpoint_flags
from minicnn.files import to_json
from minicnn.saved_model import images_at_once, load_model
from minicnn.text import certainty, printable


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.predict") -> None:
    """Classify the images that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    # stdout is for the answers alone.
    console = make_console(stderr=True)
    backend = choose_backend(args, console)
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
    if saved.temperature is not None:
        console.print(f"temperature: {saved.temperature:.3f}, fitted in training to validation images")
    probabilities = metrics.softmax(calibration.scaled(logits, saved.temperature))
    answers = [_best(row, saved.class_names, args.top) for row in probabilities]
    if args.json:
        rows = zip(args.images, answers, strict=True)
        found = [{"image": str(p), **_unsure(a, args.reject), "predictions": a} for p, a in rows]
        print(to_json(found, indent=2))
        return
    for path, answer in zip(args.images, answers, strict=True):
        if _unsure(answer, args.reject).get("unsure"):
            print(printable(f"{path}: unsure"))
            continue
        tops = ", ".join(f"{one['class']} {certainty(one['probability'])}" for one in answer)
        print(printable(f"{path}: {tops}"))


def _best(probabilities: np.ndarray, names: list[str], count: int) -> list[dict[str, Any]]:
    """The likeliest classes, best first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class": names[i], "probability": float(probabilities[i])} for i in order]


def _unsure(answer: list[dict[str, Any]], reject: float | None) -> dict[str, bool]:
    """What --reject adds to an answer: whether its best guess is less likely than that."""
    return {} if reject is None else {"unsure": answer[0]["probability"] < reject}


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
        help="image file: PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF, or HEIC with pillow-heif",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "--top", type=whole_number(1), default=3, metavar="N", help="classes to show an image"
    )
    parser.add_argument(
        "--reject", type=number(0, 1), metavar="X",
        help='answer "unsure" where the likeliest class has a probability below X; JSON has the guess '
        "nevertheless (default: always answer)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    return parser
