"""``minicnn export``: write a trained model for other programs, and verify that it predicts the same."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn import __version__, data
from minicnn.app import exporting, summary
from minicnn.app.command_line import (
    Parser,
    add_quiet_flag,
    choose_backend,
    make_console,
    make_notes,
    number,
    whole_number,
)
from minicnn.app.engines import load_engines
from minicnn.app.exporting import ENDINGS, Content
from minicnn.app.flags import add_flag
from minicnn.app.judging import images_to_judge
from minicnn.app.known_paths import with_known_paths, without_folders
from minicnn.app.prediction import predict_images
from minicnn.app.progress import shown
from minicnn.app.settings import Config
from minicnn.app.verification import verify
from minicnn.checkpoint import Checkpoint
from minicnn.contract import Contract
from minicnn.data.images import Images, convert_channels
from minicnn.files import write_atomically
from minicnn.layers import Sequential
from minicnn.saved_model import images_at_once, load_model

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.export") -> None:
    """Export the checkpoint that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    _check(args)
    console, notes = make_console(), make_notes(args)
    saved, model = load_model(args.checkpoint, choose_backend(args, notes), "float32")
    config = Config.of_checkpoint(args.checkpoint, saved)
    if config.tta != "none":
        notes.print(f"the file looks at each image once, without --tta {config.tta} of the training")
    content = _content(args, notes, saved, config, model)
    entries = _verified(args, console, notes, saved, config, model, content) if args.verify else {}
    made = content(entries)
    write_atomically(args.out, made)
    told = f"{args.out}: {len(made) / 1e6:.2f} MB{_form(args)}"
    console.print(told if args.verify else f"{told}; not verified: --verify DATA runs it on test images")


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for flags that do not go together, before anything is computed."""
    kind, ending = args.to, ENDINGS[args.to]
    if args.out.suffix != ending:
        raise ValueError(f"--to {kind}: expected a file name that ends in {ending}, got {args.out}")
    if not args.out.absolute().parent.is_dir():
        raise ValueError(f"{args.out}: expected a folder that is there, got {args.out.parent}")
    if args.out.exists() and args.checkpoint.exists() and args.out.samefile(args.checkpoint):
        raise ValueError(f"{args.out} is the checkpoint: expected another file")
    for flag, is_given in (
        ("--unfolded", args.unfolded), ("--any-size", args.any_size), ("--quantize", args.quantize),
    ):  # fmt: skip
        if is_given and kind != "onnx":
            raise ValueError(f"{flag} is for --to onnx, not for --to {kind}")
    if args.verify and kind == "safetensors":
        raise ValueError("--verify is for --to onnx and --to torch: plain weights compute nothing")
    if args.quantize and args.unfolded:
        raise ValueError("--unfolded does not go with --quantize, which needs batch norms folded")
    exporting.check_packages(kind, quantize=args.quantize)


def _content(
    args: argparse.Namespace, notes: Console, saved: Checkpoint, config: Config, model: Sequential
) -> Content:
    contract = Contract.of_checkpoint(saved, config.resize)
    if args.to == "torch":
        return exporting.torch_content(model, contract)
    if args.to == "safetensors":
        return exporting.safetensors_content(model, contract)
    training = _training_images(args, notes, saved, config) if args.quantize else None
    return exporting.onnx_content(
        model, contract, config.model, fold=not args.unfolded, any_size=args.any_size, training=training
    )


def _training_images(
    args: argparse.Namespace, notes: Console, saved: Checkpoint, config: Config
) -> data.Images:
    """The training images whose activations --quantize looks at.  Raises DataError, CheckpointError."""
    from minicnn.app.quantization import IMAGES

    config = with_known_paths(args.checkpoint, config, args.dataset)
    name = args.dataset or config.dataset
    own = name == config.dataset
    with summary.of_unusable(notes), shown(notes, "reading training images") as progress:
        dataset = data.load(
            name, data_dir=args.data_dir or (config.data_dir if own else None),
            image_size=saved.image_shape[1:], group_by=config.group_by if own else None,
            resize=config.resize, limit_train=min(IMAGES, config.limit_train or IMAGES), limit_test=1,
            seed=config.seed, skip_bad=config.skip_bad, cache=config.cache,
            download=args.dataset is not None, progress=progress,
        )  # fmt: skip
    images = dataset.train
    notes.print(f"quantised by {len(images):,} training images of {name}")
    return Images(convert_channels(images.take(np.arange(len(images))), saved.image_shape[0]), images.y)


def _verified(
    args: argparse.Namespace, console: Console, notes: Console, saved: Checkpoint, config: Config,
    model: Sequential, content: Content,
) -> dict[str, Any]:  # fmt: skip
    """What each engine makes of the test images, for the metadata.

    Raises: ValueError if it is not what minicnn makes of them
    """
    config = with_known_paths(args.checkpoint, config, args.verify)
    engines = load_engines(args.to, content({}), args.threads)
    with summary.of_unusable(notes), shown(notes, "reading images") as progress:
        judged = images_to_judge(
            args.checkpoint,
            saved,
            config,
            args.verify,
            data_dir=args.data_dir,
            limit=args.limit_test,
            progress=progress,
        )
    summary.show_judged(notes, judged)
    with shown(notes, "predicting") as progress:
        logits = predict_images(
            model, judged.images, saved.mean, saved.std, progress,
            batch_size=images_at_once(model, saved.image_shape),
        )  # fmt: skip
    found = []
    for engine in engines:
        with shown(notes, f"verifying with {engine.name}") as progress:
            one = verify(engine, judged.images, logits, saved.temperature, progress)
        console.print(str(one))
        one.check(args.most_lost / 100 if args.quantize else None)
        found.append(one.entry())
    versions = {"minicnn": __version__, **exporting.versions(args.to)}
    dataset = without_folders(vars(replace(config, dataset=args.verify)))["dataset"]
    told = {"data": dataset, "versions": versions, "backend": model.backend.label, "engines": found}
    return {"verification": told}


def _form(args: argparse.Namespace) -> str:
    """What the file is like, for the line that names it."""
    if args.to != "onnx":
        return ""
    from minicnn.graph.onnx import OPSET

    folded = "as they are" if args.unfolded else "folded"
    return f", opset {OPSET}, batch norms {folded}{', int8' if args.quantize else ''}"


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--checkpoint FILE --to KIND [options] OUT",
        "Write a trained model for other programs: as an ONNX model or a program of torch.export, which "
        "take bytes of images and give probabilities, or as plain weights. With --verify the file is run "
        "on test images first, and is not written if it does not predict what minicnn does.",
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="the file to write: .onnx, .pt2 or .safetensors"
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE",
        help="the trained model: best.safetensors or checkpoint.safetensors of a run",
    )  # fmt: skip
    parser.add_argument("--to", choices=tuple(ENDINGS), required=True, help="the kind of file")
    parser.add_argument(
        "--verify", metavar="DATA",
        help="run the file on the test images of this dataset, in ONNX Runtime and, where it is installed, "
        "OpenVINO, or in torch: what differs from minicnn is printed and kept in the file's metadata, and "
        "nothing is written if it is too much (default: not verified)",
    )  # fmt: skip
    parser.add_argument(
        "--unfolded", action="store_true", help="leave batch norms as they are, for --to onnx"
    )
    parser.add_argument(
        "--any-size", action="store_true",
        help="take images of any height and width, which the ONNX model brings to its size as training did",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", action="store_true",
        help="write int8 weights, a quarter of the size, with ranges of activations from training images",
    )  # fmt: skip
    parser.add_argument(
        "--most-lost", type=number(0, 100), default=1.0, metavar="X",
        help="by how many points the accuracy of --quantize may be below that of minicnn, for --verify",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", metavar="NAME",
        help="where --quantize takes training images from (default: as in training)",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where these datasets lie (default: as in training)"
    )
    parser.add_argument(
        "--limit-test", type=whole_number(1), metavar="N",
        help="verify with N images only (default: as in training)",
    )  # fmt: skip
    for name in ("backend", "threads"):
        add_flag(parser, name)
    add_quiet_flag(parser)
    return parser
