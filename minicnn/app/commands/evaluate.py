"""``minicnn evaluate``: test a checkpoint and report accuracy, precision, recall, F1."""

from __future__ import annotations

import argparse
from pathlib import Path

from minicnn import data
from minicnn.app import report, settings, summary
from minicnn.app.command_line import (
    Parser,
    add_quiet_flag,
    choose_backend,
    make_console,
    make_notes,
    whole_number,
)
from minicnn.app.flags import add_checkpoint_flags, add_flag
from minicnn.app.known_paths import with_known_paths
from minicnn.app.prediction import predict_images
from minicnn.app.progress import shown
from minicnn.app.run_folder import make_folder
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.data.decode import Work
from minicnn.data.judged import Judged, Learnt, judge_named, judge_own_source, judge_source
from minicnn.data.progress import OnProgress
from minicnn.data.record import SplitRecord
from minicnn.data.sources import kind_of, place_of
from minicnn.saved_model import images_at_once, load_model


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.evaluate") -> None:
    """Evaluate the checkpoint that the arguments name.  Raises what `exit_with` turns into one line."""
    args = _parser(prog).parse_args(argv)
    console, notes = make_console(), make_notes(args)
    saved, model = load_model(args.checkpoint, choose_backend(args, notes), args.precision)
    config = Config.of_checkpoint(args.checkpoint, saved)
    config = with_known_paths(args.checkpoint, config, args.dataset)
    with summary.of_unusable(notes), shown(notes, "reading images") as progress:
        judged = _judged(args, saved, config, progress)
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
        report.write(args.out, result, images, logits)
        notes.print(f"report and plots: {args.out}")


def _judged(args: argparse.Namespace, saved: Checkpoint, config: Config, progress: OnProgress) -> Judged:
    """The images to test on.  Raises DataError, CheckpointError naming what does not fit."""
    name = args.dataset or config.dataset
    try:
        record = SplitRecord.of_json(saved.split)
    except ValueError as error:
        raise CheckpointError(f"{args.checkpoint}: {error}") from None
    learnt = Learnt(saved.class_names, saved.image_shape, record)
    same = name == config.dataset
    skip_bad = args.skip_bad or (same and config.skip_bad)
    if kind_of(name):
        cache = args.cache or (config.cache if same else None)
        own = _is_own(name, config)
        limit = args.limit_test or (config.limit_test if own else None)
        judge = judge_own_source if own else judge_source
        work = Work(
            resize=config.resize, cache=Path(cache) if cache else None, in_memory=settings.in_memory(args),
            skip_bad=skip_bad, progress=progress,
        )  # fmt: skip
        return judge(name, learnt, work, limit=limit, seed=config.seed)
    dataset = data.load(
        name,
        data_dir=args.data_dir or (config.data_dir if same else None),
        image_size=saved.image_shape[1:],
        resize=config.resize,
        validation=config.validation if same else None,
        limit_train=config.limit_train if same else None,
        limit_test=args.limit_test or (config.limit_test if same else None),
        seed=config.seed,
        download=args.dataset is not None,  # a file does not decide on it
        progress=progress,
    )
    judged = judge_named(name, dataset.test, dataset.class_names, learnt)
    whole = same and "validation" in saved.config and not args.limit_test
    if whole and dataset.fingerprint != saved.fingerprint:
        judged.notes.append("these are not the data of the training: their fingerprint is another one")
    return judged


def _is_own(name: str, config: Config) -> bool:
    """Whether a source is the one that the model was trained on."""
    kind = kind_of(name)
    return (
        kind == kind_of(config.dataset) and place_of(name).resolve() == place_of(config.dataset).resolve()
    )


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
