"""``minicnn evaluate``: test a checkpoint and report accuracy, precision, recall, F1."""

from __future__ import annotations

import argparse
from pathlib import Path

from minicnn.app import provenance, report, settings, summary
from minicnn.app.command_line import (
    Parser,
    add_quiet_flag,
    choose_backend,
    make_console,
    make_notes,
    whole_number,
)
from minicnn.app.flags import add_checkpoint_flags, add_flag
from minicnn.app.judging import images_to_judge
from minicnn.app.known_paths import with_known_paths, without_folders
from minicnn.app.pages.report_page import About
from minicnn.app.prediction import predict_images
from minicnn.app.progress import shown
from minicnn.app.run_folder import make_folder
from minicnn.app.settings import Config
from minicnn.layers.conv2d import first_filters
from minicnn.saved_model import images_at_once, load_model


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.evaluate") -> None:
    """Evaluate the checkpoint that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    console, notes = make_console(), make_notes(args)
    saved, model = load_model(args.checkpoint, choose_backend(args, notes), args.precision)
    config = Config.of_checkpoint(args.checkpoint, saved)
    config = with_known_paths(args.checkpoint, config, args.dataset)
    with summary.of_unusable(notes), shown(notes, "reading images") as progress:
        judged = images_to_judge(
            args.checkpoint, saved, config, args.dataset, data_dir=args.data_dir, limit=args.limit_test,
            skip_bad=args.skip_bad, cache=args.cache, in_memory=settings.in_memory(args), progress=progress,
        )  # fmt: skip
    images = judged.images
    summary.show_judged(console, judged)
    with shown(notes, "testing") as progress:
        logits = predict_images(
            model, images, saved.mean, saved.std, progress,
            batch_size=images_at_once(model, saved.image_shape, args.batch_size),
            tta=args.tta or config.tta, fuse=not config.no_fuse,
        )  # fmt: skip
    result = report.make(model, logits, images.y, saved.class_names, saved.temperature)
    report.show(console, result)
    if args.out:
        make_folder(args.out)
        summary.write_skipped(args.out, judged.summary)
        about = About(
            settings=saved.config, computed=provenance.about(model.backend), history=saved.history,
            tested=f"{args.checkpoint.name}, tested on {len(images):,} images of {_public(args, config)}.",
            best_epoch=saved.epoch or None, filters=first_filters(model.state_dict()),
        )  # fmt: skip
        report.write(args.out, result, images, logits, about)
        notes.print(f"report and plots: {args.out}")


def _public(args: argparse.Namespace, config: Config) -> str:
    """The dataset to test on, without the folder that it lies in."""
    return str(without_folders({"dataset": args.dataset or config.dataset})["dataset"])


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "--checkpoint FILE [options]",
        "Test a trained model on the test images of a dataset, and print accuracy and a report by class.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "--dataset", metavar="NAME",
        help="another dataset with classes of the model, downloaded if it is not there; of your own "
        "images, as in folder:DIR, the whole, or the test part if there are parts (default: training's, "
        "of which the test part)",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the dataset lies (default: as in training)"
    )
    parser.add_argument(
        "--limit-test",
        type=whole_number(1),
        metavar="N",
        help="test on N images only (default: as in training)",
    )
    add_flag(parser, "skip_bad", help="leave out files that are no intact images (default: as in training)")
    add_flag(
        parser, "cache",
        help="folder for decoded images that are too many for memory (default: as in training)",
    )  # fmt: skip
    add_flag(parser, "cache_above")
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=256, metavar="N", help="images at a time"
    )
    add_quiet_flag(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write report.json and the plots here (default: print only)"
    )
    return parser
