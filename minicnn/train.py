"""``python -m minicnn.train``: train a model on a dataset, with checkpoints, metrics and plots."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Console

from minicnn import cli, data, models, recipes, schedules
from minicnn import run as runs
from minicnn.checkpoint import CheckpointError, load
from minicnn.config import RATES, Config
from minicnn.data import augment
from minicnn.experiment import Experiment
from minicnn.files import folder_lock, make_folder
from minicnn.pretrained import init_from
from minicnn.progress import duration

LIST = "list"
"""What --recipe takes besides recipes: prints them."""


def main(argv: list[str] | None = None) -> None:
    """Train as the arguments say.  Raises what `cli.run` turns into one line."""
    args = parse(argv)
    console = cli.make_console()
    if args.recipe == LIST:
        console.print(
            "\n\n".join(f"{name}\n{indent(recipes.about(name), '  ')}" for name in recipes.names())
        )
        return
    out = args.out or Path("runs") / _folder_name(args)
    saved = _saved_config(out, args, console)
    if saved:
        given = vars(_parser(all_defaults=False).parse_args(argv))
        args = argparse.Namespace(**vars(args) | saved | given)
    args.backend = cli.choose_backend(args, console)
    config = Config.resolve(vars(args))
    if saved:
        config.check_resumes(saved)
    experiment = _experiment(config, console)
    if config.init_from and not saved:
        _init_from(config.init_from, experiment, console)
    if args.dry_run:
        _dry_run(experiment, console)
        return
    make_folder(out)
    with folder_lock(out):
        run = runs.Run(out, experiment, console)
        if saved:
            run.resume()
        else:
            run.start(overwrite=args.overwrite)
        console.print(f"folder: {out}")
        run.train()
        run.finish()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """All arguments, with the recipe's and then the defaults for those not given.

    Raises: ValueError, OSError about a recipe that cannot be had
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    given = parser.parse_args(argv)
    if given.recipe in (None, LIST):
        return given
    chosen = recipes.arguments(given.recipe)
    for argument in chosen:
        if argument.partition("=")[0] not in parser._option_string_actions:
            raise ValueError(f"recipe {given.recipe}: expected flags of this command, got {argument}")
    return parser.parse_args([*chosen, *argv])


def _saved_config(out: Path, args: argparse.Namespace, console: Console) -> dict[str, Any] | None:
    """The settings of the run to resume; None if a new one begins."""
    if args.resume and (out / runs.CHECKPOINT).exists():
        path = out / runs.CHECKPOINT
        saved = load(path).config
        try:
            return asdict(Config.from_saved(saved))
        except ValueError as error:
            raise CheckpointError(f"{path}: its settings: {error}") from None
    if args.resume:
        console.print(f"{out} holds no checkpoint yet: starting from the beginning")
    elif not (args.overwrite or args.dry_run):
        runs.refuse_existing(out)
    return None


def _experiment(config: Config, console: Console) -> Experiment:
    dataset = data.load(
        config.dataset, data_dir=config.data_dir, image_size=config.image_size, seed=config.seed,
        limit_train=config.limit_train, limit_test=config.limit_test,
    )  # fmt: skip
    shape = "×".join(map(str, dataset.train.x.shape[1:]))
    console.print(
        f"data: {dataset.name}, {len(dataset.train):,} training and {len(dataset.test):,} test images, "
        f"{shape}, {len(dataset.class_names)} classes"
    )
    experiment = Experiment(config, dataset)
    parameters = sum(
        a.numel() if hasattr(a, "numel") else a.size for a in experiment.model.named_parameters().values()
    )
    console.print(f"model: {config.model}, {parameters:,} parameters")
    return experiment


def _init_from(file: str, experiment: Experiment, console: Console) -> None:
    taken = init_from(experiment.model, file)
    console.print(f"first weights: {file}")
    if taken.new:
        console.print(f"for {len(experiment.dataset.class_names)} classes, new: {', '.join(taken.new)}")
    if taken.ignored:
        heads = dict.fromkeys(key.partition(".")[0] for key in taken.ignored)
        console.print(f"ignored: {', '.join(f'{head}.*' for head in heads)}")


def _dry_run(experiment: Experiment, console: Console) -> None:
    """Two training steps, of which the second is timed: the first one warms up."""
    console.print(experiment.model.summary(experiment.image_shape, fuse=not experiment.config.no_fuse))
    before = 0.0
    for step, _ in enumerate(experiment.steps(), 1):
        seconds = experiment.sums["seconds"] - before
        before = experiment.sums["seconds"]
        if step == 2:
            break
    console.print(f"loss of the first batches: {experiment.sums['loss'] / experiment.sums['images']:.4f}")
    estimate = duration(seconds * len(experiment.batches))
    console.print(f"one epoch would take about {estimate} of training; nothing was written")


def _folder_name(args: argparse.Namespace) -> str:
    if args.recipe:
        return Path(args.recipe).stem
    return f"{args.model}-{re.sub(r'[^A-Za-z0-9.]+', '-', args.dataset).strip('-.')}"


def _parser(*, all_defaults: bool = True) -> argparse.ArgumentParser:
    """The parser; without ``all_defaults`` it returns only what was given on the command line."""
    parser = cli.Parser(
        "train",
        "[options]",
        "Train an image classifier; its metrics, checkpoints, report and plots go to a folder. Without any "
        "option: simple_cnn on the bundled sample of Fashion-MNIST, in a minute or two, without a network.",
    )
    _add_what(parser.add_argument_group("what to train, and on what"))
    _add_how(parser.add_argument_group("how to train"))
    _add_rates(parser.add_argument_group("how to learn"))
    _add_where(parser.add_argument_group("where results go"))
    if not all_defaults:
        for action in parser._actions:
            action.default = argparse.SUPPRESS
    return parser


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--recipe", metavar="NAME",
        help=f"take the flags of a recipe, {', '.join(recipes.names())} or FILE.toml; flags beside it win; "
        f"{LIST} tells what each recipe reaches (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--model", choices=models.names(), default="simple_cnn", metavar="NAME",
        help=f"the network: {', '.join(models.names())}",
    )  # fmt: skip
    cli.add_data(group)
    group.add_argument(
        "--init-from", metavar="FILE",
        help="start from these weights, a .safetensors file or torch's .pt or .pth, with a new last layer "
        "for another number of classes (default: from random ones)",
    )  # fmt: skip
    group.add_argument(
        "--freeze", metavar="NAME[,...]",
        help="layers to leave as they are, with all below them, as in conv1,layer?,*.bn1 (default: none)",
    )  # fmt: skip
    for part in ("train", "test"):
        group.add_argument(
            f"--limit-{part}", type=cli.whole_number(1), metavar="N",
            help=f"use only N {'training' if part == 'train' else part} images (default: all)",
        )  # fmt: skip
    group.add_argument(
        "--augment",
        metavar="LIST",
        help=f"change training images (default: as they are); {augment.help_text()}",
    )


def _add_how(group: argparse._ArgumentGroup) -> None:
    cli.add_backend(group)
    group.add_argument(
        "--epochs", type=cli.whole_number(1), default=3, metavar="N", help="passes over the data"
    )
    group.add_argument(
        "--batch-size", type=cli.whole_number(1), default=128, metavar="N", help="images in a step"
    )
    group.add_argument(
        "--seed", type=cli.whole_number(0), default=0, metavar="N",
        help="for first weights, shuffling and dropout: the same seed gives the same run",
    )  # fmt: skip
    group.add_argument(
        "--no-fuse",
        action="store_true",
        help="run each layer by itself, not fused with its neighbours",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="load, print the model, time two steps, write nothing"
    )


def _add_rates(group: argparse._ArgumentGroup) -> None:
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in RATES.items())
    group.add_argument(
        "--optimizer", choices=tuple(RATES), default="adam", help="how weights follow gradients"
    )
    group.add_argument(
        "--lr", type=cli.number(0, above=True), metavar="X",
        help=f"learning rate; the highest one, if the schedule varies it (default: {rates})",
    )  # fmt: skip
    group.add_argument(
        "--schedule", choices=schedules.NAMES, default="onecycle",
        help="how the learning rate changes over the run",
    )  # fmt: skip
    group.add_argument(
        "--warmup",
        type=cli.number(0, 1),
        metavar="X",
        help="share of the run, from 0 to 1, in which the learning rate rises (default: 0.3 for onecycle, "
        "else 0)",
    )
    group.add_argument(
        "--momentum",
        type=cli.number(0, 1),
        metavar="X",
        help="for sgd (default: 0.9) and rmsprop (default: 0)",
    )
    group.add_argument(
        "--nesterov", action=argparse.BooleanOptionalAction, default=False,
        help="Nesterov's momentum, for sgd",
    )  # fmt: skip
    group.add_argument(
        "--weight-decay",
        type=cli.number(0),
        metavar="X",
        help="pull weights to 0 (default: 0.01 for adamw, else 0)",
    )
    group.add_argument(
        "--clip-norm",
        type=cli.number(0, above=True),
        metavar="X",
        help="scale all gradients down to this Euclidean norm together (default: off)",
    )
    group.add_argument(
        "--label-smoothing",
        type=cli.number(0, 1),
        default=0.0,
        metavar="X",
        help="share of a label, from 0 to 1, spread over all classes",
    )
    group.add_argument(
        "--class-weight", choices=("none", "balanced"), default="none",
        help="balanced: rare classes count more, so that in the loss all count alike; refused where "
        "--label-smoothing would then favour a very rare class everywhere",
    )  # fmt: skip
    group.add_argument(
        "--ema", type=cli.number(0, 1), default=0.0, metavar="DECAY",
        help="test and save a moving average of the weights instead of the last ones, 0.999 say; 0: off",
    )  # fmt: skip
    cli.add_tta(group, "none")
    group.add_argument(
        "--test-every", type=cli.whole_number(1), default=1, metavar="N",
        help="test after each Nth epoch and after the last; a best epoch is one that was tested",
    )  # fmt: skip
    group.add_argument(
        "--early-stop", type=cli.whole_number(1), metavar="N",
        help="hold a tenth of the training images out, and stop when the loss on them has not fallen for N "
        "epochs; then best.safetensors is chosen by their accuracy, not by the test's (default: off)",
    )  # fmt: skip


def _add_where(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/RECIPE or runs/MODEL-DATASET)",
    )
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true",
        help="go on with the run in --out; its own settings hold, and need not be given again",
    )  # fmt: skip
    existing.add_argument("--overwrite", action="store_true", help="delete the run in --out first")
    group.add_argument(
        "--save-every", type=cli.number(0), default=60.0, metavar="SECONDS",
        help="checkpoint this often within an epoch; there is always one at its end",
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
