"""``minicnn predict``: say what is in image files.

Exit status: 0 where every image was classified, 4 where some could not be read, 2 where the command failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from minicnn import calibration, data, metrics
from minicnn.app.answers import Entry, print_json, print_json_lines, print_lines, write_csv
from minicnn.app.command_line import (
    EXIT_UNREADABLE,
    Parser,
    add_quiet_flag,
    choose_backend,
    make_console,
    make_notes,
    number,
    print_error,
    warn,
    whole_number,
)
from minicnn.app.flags import add_checkpoint_flags
from minicnn.app.named_images import MOST_READERS, STDIN, Image, named_images, read_ahead
from minicnn.app.prediction import Brightness, predict_images
from minicnn.app.progress import shown
from minicnn.app.settings import Config
from minicnn.data.progress import OnProgress
from minicnn.data.workers import processors
from minicnn.saved_model import images_at_once, load_model

IMAGES_AT_ONCE = 256
"""Images that are decoded and classified together: memory holds no more, however many there are."""

BYTES_AHEAD = 64 << 20
"""Bytes of images that are decoded ahead, while others are classified: of larger images, fewer are."""

Found = tuple[str, Image | data.DataError]
"""A path, and its image or what is wrong with it."""
Classify = Callable[[Image], list[list[Entry]]]


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.predict") -> None:
    """Classify the images that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    if args.csv is not None:
        _check_table(args.csv)
    notes = make_notes(args, stderr=True)  # stdout is for the answers alone
    saved, model = load_model(args.checkpoint, choose_backend(args, notes), args.precision)
    config = Config.of_checkpoint(args.checkpoint, saved)
    brightness = Brightness(saved.mean, saved.std)
    if saved.temperature is not None:
        notes.print(f"temperature: {saved.temperature:.3f}, fitted in training to validation images")

    channels, height, width = saved.image_shape

    def read(path: str) -> Image:
        image = data.read_image(path, channels=channels, size=(height, width), resize=config.resize)
        return 255 - image if args.invert else image

    def classify(images: Image) -> list[list[Entry]]:
        logits = predict_images(
            model, images, saved.mean, saved.std, batch_size=images_at_once(model, saved.image_shape),
            tta=args.tta or config.tta, fuse=not config.no_fuse,
        )  # fmt: skip
        probabilities = metrics.softmax(calibration.scaled(logits, saved.temperature))
        return [_best(row, saved.class_names, args.top) for row in probabilities]

    paths, total = named_images(args.images)
    readers = min(args.threads or processors(), MOST_READERS)
    ahead = max(readers, min(IMAGES_AT_ONCE, BYTES_AHEAD // (channels * height * width)))
    found = brightness.noting(read_ahead(paths, read, readers=readers, ahead=ahead))
    # Answers that run through a terminal show by themselves how far the work is.
    answers_run = sys.stdout.isatty() and not args.json and args.csv is None
    bar = shown(make_console(quiet=True) if answers_run else notes, "classifying")
    with bar as progress, closing(found):
        entries = _entries(_shown(found, total, progress), classify, args.reject)
        unreadable = _told(args, len(saved.class_names), entries)
    if brightness.far and not args.quiet:
        warn(f"{brightness}{'' if args.invert else '; --invert turns black on white into white on black'}")
    if unreadable:
        sys.exit(EXIT_UNREADABLE)


def _told(args: argparse.Namespace, classes: int, entries: Iterator[Entry]) -> bool:
    """Print or write what is said of each file, as the flags ask; whether one could not be read."""
    if args.csv is not None:
        return write_csv(args.csv, entries, min(args.top, classes), reject=args.reject is not None)
    if args.json_lines:
        return print_json_lines(entries)
    return print_json(entries) if args.json else print_lines(entries)


def _shown(found: Iterable[Found], total: int | None, progress: OnProgress) -> Iterator[Found]:
    """The same, with the progress shown as each is asked for."""
    for done, one in enumerate(found, 1):
        progress(done, done if total is None else total)
        yield one


def _entries(found: Iterator[Found], classify: Classify, reject: float | None) -> Iterator[Entry]:
    """What is said of each file, in order; what cannot be read is told on stderr too."""
    while chunk := list(islice(found, IMAGES_AT_ONCE)):
        images = [image for _, image in chunk if not isinstance(image, data.DataError)]
        answers = iter(classify(np.stack(images)) if images else [])
        for path, image in chunk:
            if isinstance(image, data.DataError):
                print_error(str(image))
                yield {"image": path, "error": str(image)}
            else:
                answer = next(answers)
                yield {"image": path, **_unsure(answer, reject), "predictions": answer}


def _best(probabilities: np.ndarray, names: list[str], count: int) -> list[Entry]:
    """The likeliest classes, best first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class": names[i], "probability": float(probabilities[i])} for i in order]


def _check_table(path: Path) -> None:
    """Raise ValueError if a file cannot take the path's place."""
    if path.is_dir():
        raise ValueError(f"--csv {path}: expected a file, got a folder")
    if (path.exists() and not path.is_file()) or Path("/dev") in path.absolute().parents:
        raise ValueError(f"--csv {path}: expected a file, got a device or a pipe; --json-lines prints")


def _unsure(answer: list[Entry], reject: float | None) -> dict[str, bool]:
    """What --reject adds to an answer: whether its best guess is less likely than that."""
    return {} if reject is None else {"unsure": answer[0]["probability"] < reject}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--checkpoint FILE [options] IMAGE...",
        "Classify image files with a trained model, however many there are; they are preprocessed as in "
        "training. A file that cannot be read is named on stderr, the others are classified, and the exit "
        f"status is {EXIT_UNREADABLE}.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image file: png, jpg, gif, bmp, webp, tiff or ppm; a folder, for the images below it; a "
        f"pattern such as 'photos/**/*.jpg'; or {STDIN} for a list of all these on stdin, one a line",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "--invert", action="store_true",
        help="invert the images, such as black digits on white for a model that learnt white ones on black",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=whole_number(1), default=3, metavar="N", help="classes to show an image"
    )
    parser.add_argument(
        "--reject", type=number(0, 1), metavar="X",
        help='answer "unsure" where the likeliest class has a probability below X; JSON has the guess '
        "nevertheless (default: always answer)",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, for machines: a list of all images")
    form.add_argument(
        "--json-lines",
        action="store_true",
        help="print JSON, an object a line, each as soon as its batch is classified",
    )
    form.add_argument(
        "--csv", type=Path, metavar="FILE",
        help="write a table, a row for each image, in place of printing (default: print)",
    )  # fmt: skip
    add_quiet_flag(parser)
    return parser
