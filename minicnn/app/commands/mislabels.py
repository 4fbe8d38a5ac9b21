"""``minicnn mislabels``: find training images whose labels may be wrong, by cross-validation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn import data, label_errors, metrics, plots_judging
from minicnn.app import flags, settings, summary
from minicnn.app.command_line import Parser, choose_backend, make_console, whole_number
from minicnn.app.experiment import Experiment
from minicnn.app.progress import Progress
from minicnn.app.run_folder import make_folder
from minicnn.app.settings import LIST, Config
from minicnn.app.training import show_progress
from minicnn.data.groups import group_names
from minicnn.distributed import TIMEOUT
from minicnn.files import write_json
from minicnn.pretrained import init_from

if TYPE_CHECKING:
    from rich.console import Console

FIXED = {
    "validation": 0.0, "limit_test": 1, "test_every": None, "early_stop": None, "temperature": False,
    "save_every": 0.0, "tensorboard": False, "shards": 1, "reduce": "ordered", "peer_timeout": TIMEOUT,
    "sync_batch_norm": False,
}  # fmt: skip
"""Settings of training that have no flag here: each fold is tested once, on the images that it left out."""

SHOWN, PRINTED = 24, 10
"""Images that are drawn, and that are printed."""

RESULT, PICTURE = "mislabels.json", "mislabels.png"


def main(argv: list[str] | None = None, prog: str = "python -m minicnn.mislabels") -> None:
    """Train on all folds but one, in turn, and show where the models contradict the labels of that one.

    Raises what `exit_with` turns into one line.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = flags.parse(_parser(prog), argv, without=FIXED)
    if args.recipe == LIST:
        raise ValueError(f"--recipe {LIST} is for train; here the flag takes the name of a recipe")
    console = make_console()
    args.backend = choose_backend(args, console)
    config = Config.resolve(vars(args))
    dataset = summary.load(console, config)
    _check_folds(dataset, args.folds)
    make_folder(args.out)
    console.print(f"data: {dataset.name}, {len(dataset.train):,} training images, {args.folds} folds")
    probabilities = _held_out_probabilities(config, dataset, args.folds, console)
    found = label_errors.disagreements(probabilities, dataset.train.y)
    result = _result(config, dataset, args.folds, found)
    write_json(args.out / RESULT, result)
    _draw(args.out / PICTURE, dataset, found[:SHOWN])
    _show(console, result)
    console.print(f"all of them: {args.out / RESULT}, the first: {args.out / PICTURE}")


def _draw(path: Path, dataset: data.Dataset, found: list[label_errors.Disagreement]) -> None:
    images = dataset.train.take(np.array([one["index"] for one in found], np.int64))
    numbered: list[label_errors.Disagreement] = [
        {**one, "index": number} for number, one in enumerate(found)
    ]
    plots_judging.mislabels(path, images, numbered, dataset.class_names)


def _check_folds(dataset: data.Dataset, folds: int) -> None:
    """Raise ValueError unless each class has an image for each fold."""
    counts = np.bincount(dataset.train.y, minlength=len(dataset.class_names))
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count < folds:
            raise ValueError(
                f"--folds {folds}: expected at least {folds} training images of each class, "
                f"got {count} of {name}"
            )


def _held_out_probabilities(
    config: Config, dataset: data.Dataset, folds: int, console: Console
) -> np.ndarray:
    """The probabilities (N,K) of each training image, from the model that was trained without its fold."""
    train = dataset.train
    probabilities = np.empty((len(train), len(dataset.class_names)))
    for number, (learnt, held) in enumerate(_folds(config, train, folds, dataset.root), 1):
        title = f"fold {number}/{folds}"
        fold = replace(dataset, train=train.subset(learnt), test=train.subset(held))
        logits = _trained_logits(config, fold, title, console)
        probabilities[held] = metrics.softmax(logits)
        agreed = 100 * metrics.accuracy(logits, train.y[held])
        console.print(f"{title}: {agreed:.2f} % of {len(held):,} images that it left out keep their label")
    return probabilities


def _folds(
    config: Config, train: data.Images, folds: int, root: Path | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the images that are learnt from, and of the fold; groups of --group-by stay whole."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if config.group_by is None or root is None:
        splitter, groups = StratifiedKFold, None
    else:
        listed = [(path, 0) for path in train.paths or ()]
        splitter, groups = StratifiedGroupKFold, group_names(root, listed, config.group_by)
    folded = splitter(folds, shuffle=True, random_state=config.seed)
    yield from folded.split(np.zeros(len(train)), train.y, groups)


def _trained_logits(config: Config, dataset: data.Dataset, title: str, console: Console) -> np.ndarray:
    """Train as the settings say; the logits (N,K) of the dataset's test images."""
    experiment = Experiment(config, dataset)
    if config.init_from:
        init_from(experiment.model, config.init_from)
    while not experiment.done:
        of_epoch = f"{title}, epoch {experiment.epoch + 1}/{config.epochs}"
        with Progress(console, of_epoch, len(experiment.batches)) as progress:
            for _ in experiment.steps():
                show_progress(progress, experiment)
        experiment.finish_epoch()
    return experiment.logits(dataset.test)


def _result(
    config: Config, dataset: data.Dataset, folds: int, found: list[label_errors.Disagreement]
) -> dict[str, Any]:
    """What mislabels.json holds."""
    return {
        "dataset": dataset.name,
        "model": config.model,
        "epochs": config.epochs,
        "seed": config.seed,
        "folds": folds,
        "images": len(dataset.train),
        "confident": sum(one["confident"] for one in found),
        "mislabels": list(_named(dataset, found)),
    }


def _named(dataset: data.Dataset, found: list[label_errors.Disagreement]) -> Iterator[dict[str, Any]]:
    """The disagreements with classes by name, and with the file, where the image is one."""
    names, paths = dataset.class_names, dataset.train.paths
    for one in found:
        file = None if paths is None else str(paths[one["index"]])
        yield {
            "file": file,
            **one,
            "label": names[one["label"]],
            "predicted": names[one["predicted"]],
        }


def _show(console: Console, result: dict[str, Any]) -> None:
    found = result["mislabels"]
    contradicted = f"{len(found):,} of {result['images']:,} labels are contradicted"
    console.print(f"{contradicted}, {result['confident']:,} of them confidently")
    for one in found[:PRINTED]:
        console.print(
            f"  {one['file'] or 'image ' + str(one['index'])}: labelled {one['label']}, "
            f"looks like {one['predicted']}, {100 * one['probability']:.1f} % sure"
        )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog,
        "[options]",
        "Find training images whose labels may be wrong: in a cross-validation, the model that is trained "
        "without them is sure of another class. Writes mislabels.json and mislabels.png.",
    )
    groups = {title: parser.add_argument_group(title) for title in settings.GROUPS}
    groups[settings.WHERE].add_argument(
        "--out", type=Path, default=Path("mislabels"), metavar="DIR", help="folder of both files"
    )
    groups[settings.HOW].add_argument(
        "--folds", type=whole_number(2), default=5, metavar="N",
        help="parts that the training images are cut into, each with all classes; one model for each",
    )  # fmt: skip
    flags.add_all_flags(groups, without=FIXED)
    return parser
