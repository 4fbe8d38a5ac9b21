"""``minicnn look``: show what a trained model sees in images.

Exit status: 0 where every image was looked at, 4 where some could not be read, 2 where the command failed.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minicnn import calibration, data, metrics, shapes
from minicnn.app import filter_history
from minicnn.app.command_line import (
    EXIT_UNREADABLE,
    Parser,
    add_quiet_flag,
    choose_backend,
    make_console,
    make_notes,
    print_error,
    whole_number,
)
from minicnn.app.flags import add_flag
from minicnn.app.known_paths import with_known_paths
from minicnn.app.pages import look_page
from minicnn.app.pages.look_page import Neighbour, Seen, Told
from minicnn.app.prediction import NotFinite
from minicnn.app.progress import shown
from minicnn.app.run_folder import make_folder
from minicnn.app.settings import Config, in_memory
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.data.images import convert_channels
from minicnn.data.progress import OnProgress
from minicnn.data.scan import find_images
from minicnn.data.split import balanced_subset
from minicnn.graph import build
from minicnn.inside import Trace, activations, features, nearest, occlusion
from minicnn.inside.grad_cam import chosen_maps, maps_of
from minicnn.layers import Sequential
from minicnn.layers.conv2d import first_filters
from minicnn.saved_model import MOST_MEMORY, images_at_once, load_model

if TYPE_CHECKING:
    from rich.console import Console

MOST_IMAGES = 50
"""A page of more would be too long to read, and too large to open."""


class Looker:
    """A model with what its checkpoint says of it, and what it is asked of each image."""

    def __init__(self, args: argparse.Namespace, saved: Checkpoint, model: Sequential) -> None:
        self.args, self.saved, self.model = args, saved, model
        self.mean, self.std = np.array(saved.mean), np.array(saved.std)
        self.label = _class_number(args.class_name, saved.class_names)

    def look(self, file: Path, image: NDArray[np.uint8], near: list[Neighbour]) -> Seen:
        """All that is shown of one image (C,H,W).  Raises ValueError if --layer has no maps."""
        x = self._normalized(image[None])
        answers = self.probabilities(x)[0]
        trace = Trace(self.model, x)
        label = int(answers.argmax()) if self.label is None else self.label
        names, best = self.saved.class_names, np.argsort(-answers, kind="stable")[: self.args.top]
        return Seen(
            file=str(file), pixels=image, label=names[label],
            answers=[(names[number], float(answers[number])) for number in best],
            grad_cam=maps_of(trace, np.array([label]), self.args.layer)[0],
            occlusion=occlusion(self.probabilities, x[0], label),
            activations=activations(trace, maps=self.args.maps), neighbours=near,
        )  # fmt: skip

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Of normalised images (N,C,H,W): (N,K), with the checkpoint's temperature."""
        logits = self.model.predict(x, images_at_once(self.model, self.saved.image_shape))
        if not np.isfinite(logits).all():
            raise NotFinite("the model gives an image numbers that are not finite")
        return metrics.softmax(calibration.scaled(logits, self.saved.temperature))

    def grad_cam_layer(self) -> str:
        """The name of the layer that Grad-CAM is of.  Raises ValueError if there is no such layer."""
        trace = Trace(self.model, np.zeros((1, *self.saved.image_shape)))
        number = chosen_maps(trace, self.args.layer)
        return self.args.layer or next(name for name, v in trace.named_values().items() if v == number)

    def features(self, images: data.Images, progress: OnProgress) -> np.ndarray:
        """What goes into the last layer, (N,D)."""
        batch_size = images_at_once(self.model, self.saved.image_shape)
        return features(self.model, images, self.mean, self.std, batch_size=batch_size, progress=progress)

    def _normalized(self, images: NDArray[np.uint8]) -> np.ndarray:
        return data.normalize(images, self.mean, self.std, self.model.dtype)


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.look") -> None:
    """Look at the images that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    notes = make_notes(args)
    saved, model = load_model(args.checkpoint, choose_backend(args, notes), "float32")
    _check_memory(args.checkpoint, model, saved.image_shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes out is checked
        _look(args, notes, Looker(args, saved, model), Config.of_checkpoint(args.checkpoint, saved))


def _look(args: argparse.Namespace, notes: Console, looker: Looker, config: Config) -> None:
    """Look at each image and write the page."""
    saved, model, layer = looker.saved, looker.model, looker.grad_cam_layer()
    every = _files(args.images, args.out)
    files, pixels = _read(args, every, saved, config)
    found: list[Seen] = []
    if files:
        remarks: list[str] = []
        with shown(notes, "reading training images") as progress:
            near = _neighbours(looker, config, np.stack(pixels), remarks, progress)
        with shown(notes, "looking") as progress:
            for done, (file, image, alike) in enumerate(zip(files, pixels, near, strict=True)):
                progress(done, len(files))
                found.append(looker.look(file, image, alike))
        told = Told(
            model=f"{config.model}, trained on {config.dataset},", layer=layer, notes=remarks,
            checkpoint=str(args.checkpoint), filters=_filters(args.checkpoint, model, remarks),
        )  # fmt: skip
        make_folder(args.out)
        written = look_page.write(args.out, found, told)
        for remark in remarks:
            notes.print(remark)
        make_console().print(f"page: {written[0]}")
        notes.print(f"pictures: {', '.join(map(str, written[1:]))}")
    if len(found) < len(every):
        sys.exit(EXIT_UNREADABLE)


def _files(paths: list[Path], out: Path) -> list[Path]:
    """The paths, each folder replaced by the images below it, but for those that `look` draws into ``out``.

    A folder without images stays, to be told of.
    """

    def below(folder: Path) -> list[Path]:
        return [file for file in find_images(folder) if out.resolve() not in file.resolve().parents]

    return [file for path in paths for file in ((path.is_dir() and below(path)) or [path])]


def _read(
    args: argparse.Namespace, every: list[Path], saved: Checkpoint, config: Config
) -> tuple[list[Path], list[NDArray[np.uint8]]]:
    """Those of the files that can be read and their images (C,H,W); the others are told of on stderr.

    Raises: ValueError if there are more than `MOST_IMAGES`
    """
    if len(every) > MOST_IMAGES:
        raise ValueError(f"expected at most {MOST_IMAGES} images, got {len(every):,}")
    channels, height, width = saved.image_shape
    files, images = [], []
    for file in every:
        try:
            image = data.read_image(file, channels=channels, size=(height, width), resize=config.resize)
        except data.DataError as error:
            print_error(str(error))
            continue
        files.append(file)
        images.append(255 - image if args.invert else image)
    return files, images


def _neighbours(
    looker: Looker, config: Config, images: NDArray[np.uint8], remarks: list[str], progress: OnProgress
) -> list[list[Neighbour]]:
    """For each image the training images nearest to it.

    Where the training images are not at hand, and the user names none, there are none, and a remark.
    """
    args = looker.args
    none: list[list[Neighbour]] = [[] for _ in images]
    if not args.neighbours:
        return none
    try:
        dataset = _training_data(args, looker.saved, config, progress)
    except (data.DataError, CheckpointError) as error:
        if args.dataset:
            raise
        remarks.append(f"Nearest training images are left out: {error}")
        return none
    if args.dataset is None and dataset.fingerprint != looker.saved.fingerprint:
        remarks.append("The training images are others than in training: their fingerprint is another one.")
    train = dataset.train
    if args.limit_train and args.limit_train < len(train):
        train = train.subset(balanced_subset(train.y, args.limit_train, config.seed))
    pixels = convert_channels(train.x, looker.saved.image_shape[0]) if args.dataset else train.x
    train = replace(train, x=pixels)
    known = looker.features(train, progress)
    asked = looker.features(data.Images(images, np.zeros(len(images), np.int64)), progress)
    return [
        [
            Neighbour(
                pixels=train.take(np.array([row]))[0],
                label=dataset.class_names[train.y[row]],
                distance=distance,
            )
            for row, distance in nearest(known, one, args.neighbours)
        ]
        for one in asked
    ]


def _training_data(
    args: argparse.Namespace, saved: Checkpoint, config: Config, progress: OnProgress
) -> data.Dataset:
    """The dataset of the training, as it was split then; or another one that the user names."""
    known = with_known_paths(args.checkpoint, config, args.dataset)
    own = args.dataset in (None, config.dataset)
    if args.dataset:
        known = replace(known, dataset=args.dataset, limit_train=None, group_by=None)
    found = data.load(
        known.dataset, data_dir=args.data_dir or (known.data_dir if own else None),
        image_size=saved.image_shape[1:] if args.dataset else known.image_size, resize=known.resize,
        seed=known.seed, validation=known.validation, group_by=known.group_by,
        limit_train=known.limit_train, limit_test=known.limit_test, skip_bad=known.skip_bad,
        cache=args.cache or (known.cache if own else None), in_memory=in_memory(args), download=False,
        progress=progress,
    )  # fmt: skip
    if not args.dataset and found.train.shape != saved.image_shape:
        raise data.DataError(
            f"{known.dataset}: expected images of shape {saved.image_shape}, got {found.train.shape}"
        )
    return found


def _filters(
    checkpoint: Path, model: Sequential, remarks: list[str]
) -> list[tuple[int | None, np.ndarray]]:
    """The first layer's filters after the run's epochs, where they lie beside the checkpoint, and now."""
    found = first_filters(model.state_dict())
    if found is None:
        return []
    kept: list[tuple[int | None, np.ndarray]] = []
    file = checkpoint.with_name(filter_history.FILTERS)
    if file.exists():
        try:
            kept += filter_history.read(file)
        except CheckpointError as error:
            remarks.append(f"The filters of earlier epochs are left out: {error}")
    return [*(pair for pair in kept if pair[1].shape == found[1].shape), (None, found[1])]


def _class_number(name: str | None, names: list[str]) -> int | None:
    if name is not None and name not in names:
        shapes.fail("look", "--class", f"one of {', '.join(names)}", name)
    return None if name is None else names.index(name)


def _check_memory(path: Path, model: Sequential, shape: tuple[int, int, int]) -> None:
    """Raise CheckpointError if all values of one image, and their gradients, need more than MOST_MEMORY."""
    needed = 8 * sum(math.prod(one) for one in build(model).shapes(shape).values())
    if needed > MOST_MEMORY:
        raise CheckpointError(
            f"{path}: image_shape: expected images whose maps take at most {MOST_MEMORY >> 30} GiB "
            f"together, got {shape}: they take {needed / 2**30:,.1f} GiB"
        )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--checkpoint FILE [options] IMAGE...",
        "Show what a trained model sees in images: each layer's maps, Grad-CAM, occlusion, the nearest "
        "training images, and the first layer's filters over the epochs. Writes look.html, which needs no "
        "network and no other file, and PNG files.",
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE",
        help=f"image file, or a folder for the images below it; at most {MOST_IMAGES} images",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE",
        help="the trained model: best.safetensors or checkpoint.safetensors of a run",
    )  # fmt: skip
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME",
        help="the class that Grad-CAM and occlusion are of (default: each image's likeliest one)",
    )  # fmt: skip
    parser.add_argument(
        "--layer", metavar="NAME",
        help="the layer or container whose maps Grad-CAM is of (default: the last maps before pooling or "
        "dense layers)",
    )  # fmt: skip
    parser.add_argument(
        "--maps", type=whole_number(1, 64), default=12, metavar="N", help="maps to show of each layer"
    )
    parser.add_argument(
        "--top", type=whole_number(1), default=3, metavar="N", help="classes to show of each image"
    )
    parser.add_argument(
        "--neighbours", type=whole_number(0, 64), default=8, metavar="N",
        help="nearest training images to show; 0: none, and the training images are not read",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", metavar="NAME", help="look for the nearest among other images (default: training's)"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the dataset lies (default: as in training)"
    )
    parser.add_argument(
        "--limit-train", type=whole_number(1), metavar="N",
        help="look for the nearest among N training images only (default: all)",
    )  # fmt: skip
    parser.add_argument("--invert", action="store_true", help="invert the images, as in predict")
    for name in ("backend", "threads", "cache", "cache_above"):
        add_flag(parser, name)
    add_quiet_flag(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("look"), metavar="DIR", help="folder of the page and the pictures"
    )
    return parser
