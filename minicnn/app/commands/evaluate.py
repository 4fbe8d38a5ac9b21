"""``minicnn evaluate``: test a checkpoint and report accuracy, precision, recall, F1."""

from __future__ import annotations

import argparse
from pathlib import Path

from minicnn import data
from minicnn.app import report
from minicnn.app.command_line import (
    Parser,
    add_quiet_flag,
    choose_backend,
    make_console,
    make_notes,
    whole_number,
)
from minicnn.app.prediction import predict_images
from minicnn.app.progress import shown
from minicnn.app.run_folder import make_folder
from minicnn.app.settings import Config, add_checkpoint_flags
from minicnn.checkpoint import CheckpointError
from minicnn.saved_model import load_model


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.evaluate") -> None:
    """Evaluate the checkpoint that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    console, notes = make_console(), make_notes(args)
    saved, model = load_model(args.checkpoint, choose_backend(args, notes))
    config = Config.of_checkpoint(args.checkpoint, saved)
    same = args.dataset in (None, config.dataset)
    with shown(notes, "reading images") as progress:
        dataset = data.load(
            config.dataset if same else args.dataset,
            data_dir=args.data_dir or (config.data_dir if same else None),
            image_size=saved.image_shape[1:],
            limit_train=config.limit_train if same else None,
            limit_test=args.limit_test or (config.limit_test if same else None),
            seed=config.seed,
            progress=progress,
        )
    if dataset.class_names != saved.class_names:
        raise CheckpointError(
            f"{args.checkpoint}: expected the classes {', '.join(saved.class_names)}, "
            f"got those of {dataset.name}: {', '.join(dataset.class_names)}"
        )
    if dataset.test.x.shape[1] != saved.image_shape[0]:
        raise CheckpointError(
            f"{args.checkpoint}: expected images of {saved.image_shape[0]} channels, "
            f"got {dataset.test.x.shape[1]} from {dataset.name}"
        )
    with shown(notes, "testing") as progress:
        logits = predict_images(
            model, dataset.test.x, saved.mean, saved.std, progress, batch_size=args.batch_size,
            tta=args.tta or config.tta, fuse=not config.no_fuse,
        )  # fmt: skip
    result = report.make(model, logits, dataset.test.y, saved.class_names)
    report.show(console, result)
    if args.out:
        make_folder(args.out)
        report.write(args.out, result, dataset.test.x, dataset.test.y, logits)
        notes.print(f"report and plots: {args.out}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--checkpoint FILE [options]",
        "Test a trained model on the test images of a dataset, and print accuracy and a report by class.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "--dataset", metavar="NAME", help="another dataset with the same classes (default: training's)"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the dataset lies (default: as in training)"
    )
    parser.add_argument(
        "--limit-test",
        type=whole_number(1),
        metavar="N",
        help="test on N images only (default: as in training)",
    )
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=256, metavar="N", help="images at a time"
    )
    add_quiet_flag(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write report.json and the plots here (default: print only)"
    )
    return parser
