"""``minicnn predict``: say what is in image files.

Exit status: 0 where every image was classified, 3 where some could not be read, 2 where the command failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicnn import calibration, data, metrics
from minicnn.app.command_line import (
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
from minicnn.app.prediction import Brightness, predict_images
from minicnn.app.progress import shown
from minicnn.app.settings import Config
from minicnn.data.progress import OnProgress
from minicnn.data.scan import find_images
from minicnn.files import to_json
from minicnn.saved_model import images_at_once, load_model
from minicnn.text import certainty, printable

EXIT_UNREADABLE = 4
IMAGES_AT_ONCE = 256
"""Images that are decoded and classified together: memory holds no more, however many there are."""

Entry = dict[str, Any]
"""What is said of an image: "image", its path, and "predictions", or "error" where it cannot be read."""
Read = Callable[[Path], NDArray[np.uint8]]
Classify = Callable[[NDArray[np.uint8]], list[list[Entry]]]


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.predict") -> None:
    """Classify the images that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    notes = make_notes(args, stderr=True)  # stdout is for the answers alone
    saved, model = load_model(args.checkpoint, choose_backend(args, notes), args.precision)
    config = Config.of_checkpoint(args.checkpoint, saved)
    brightness = Brightness(saved.mean, saved.std)
    if saved.temperature is not None:
        notes.print(f"temperature: {saved.temperature:.3f}, fitted in training to validation images")

    def read(path: Path) -> NDArray[np.uint8]:
        channels, height, width = saved.image_shape
        image = data.read_image(path, channels=channels, size=(height, width), resize=config.resize)
        image = 255 - image if args.invert else image
        brightness.note(path, image)
        return image

    def classify(images: NDArray[np.uint8]) -> list[list[Entry]]:
        logits = predict_images(
            model, images, saved.mean, saved.std, batch_size=images_at_once(model, saved.image_shape),
            tta=args.tta or config.tta, fuse=not config.no_fuse,
        )  # fmt: skip
        probabilities = metrics.softmax(calibration.scaled(logits, saved.temperature))
        return [_best(row, saved.class_names, args.top) for row in probabilities]

    # Answers that run through a terminal show by themselves how far the work is.
    answers_run = sys.stdout.isatty() and not args.json
    with shown(make_console(quiet=True) if answers_run else notes, "classifying") as progress:
        entries = _entries(_files(args.images), read, classify, args.reject, progress)
        unreadable = _print_json(entries) if args.json else _print_lines(entries)
    if brightness.far and not args.quiet:
        warn(f"{brightness}{'' if args.invert else '; --invert turns black on white into white on black'}")
    if unreadable:
        sys.exit(EXIT_UNREADABLE)


def _files(paths: list[Path]) -> list[Path]:
    """The paths, each folder replaced by the images below it; one without images stays, to be told of."""
    return [file for path in paths for file in ((path.is_dir() and find_images(path)) or [path])]


def _entries(
    files: list[Path], read: Read, classify: Classify, reject: float | None, progress: OnProgress
) -> Iterator[Entry]:
    """What is said of each file, in order; what cannot be read is told on stderr too."""
    for start in range(0, len(files), IMAGES_AT_ONCE):
        entries: list[Entry] = []
        images = []
        for done, path in enumerate(files[start : start + IMAGES_AT_ONCE], start):
            progress(done, len(files))
            entries.append({"image": str(path)})
            try:
                images.append(read(path))
            except data.DataError as error:
                entries[-1]["error"] = str(error)
                print_error(str(error))
        answers = iter(classify(np.stack(images)) if images else [])
        for entry in entries:
            if "error" not in entry:
                answer = next(answers)
                entry |= {**_unsure(answer, reject), "predictions": answer}
            yield entry


def _print_lines(entries: Iterator[Entry]) -> bool:
    """Print a line for each image as soon as it is classified; returns whether one could not be read."""
    unreadable = False
    for entry in entries:
        if "error" in entry:
            unreadable = True
            continue
        if entry.get("unsure"):
            print(printable(f"{entry['image']}: unsure"))
            continue
        tops = ", ".join(f"{one['class']} {certainty(one['probability'])}" for one in entry["predictions"])
        print(printable(f"{entry['image']}: {tops}"))
    return unreadable


def _print_json(entries: Iterator[Entry]) -> bool:
    """Print one document of all entries at the end; returns whether an image could not be read."""
    told = list(entries)
    print(to_json(told, indent=2))
    return any("error" in entry for entry in told)


def _best(probabilities: np.ndarray, names: list[str], count: int) -> list[Entry]:
    """The likeliest classes, best first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [{"class": names[i], "probability": float(probabilities[i])} for i in order]


def _unsure(answer: list[Entry], reject: float | None) -> dict[str, bool]:
    """What --reject adds to an answer: whether its best guess is less likely than that."""
    return {} if reject is None else {"unsure": answer[0]["probability"] < reject}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--checkpoint FILE [options] IMAGE...",
        "Classify image files with a trained model; they are preprocessed as in training. A file that "
        f"cannot be read is named on stderr, the others are classified, and the exit status is "
        f"{EXIT_UNREADABLE}.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="image file: png, jpg, gif, bmp, webp, tiff or ppm; or a folder, for the images below it",
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
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    add_quiet_flag(parser)
    return parser
