"""``minicnn train``: train a model on a dataset, with checkpoints, metrics and plots."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from minicnn import distributed, recipes
from minicnn.app import events, flags, report, settings, summary, training
from minicnn.app.command_line import Parser, add_quiet_flag, choose_backend, make_console, make_notes
from minicnn.app.experiment import Experiment
from minicnn.app.known_paths import usable_cache
from minicnn.app.progress import duration
from minicnn.app.run_folder import RunFolder, UnwrittenFolder
from minicnn.app.settings import LIST, Config
from minicnn.app.together import check_alike, everywhere, of_first, one_voice
from minicnn.distributed import Group
from minicnn.pretrained import init_from

if TYPE_CHECKING:
    from rich.console import Console

PROG = "python -m minicnn.train"

LONGEST_FOLDER = 60
"""Characters of a dataset's path in the name of the default folder: a file name has 255 bytes at most."""


def main(argv: list[str] | None = None, prog: str = PROG) -> None:
    """Train as the arguments say.  Raises what `exit_with` turns into one line."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv, prog)
    given = _parser(prog, defaults=False).parse_args(argv)
    if args.recipe == LIST:
        make_console().print("\n\n".join(_about(name) for name in recipes.names()))
        return
    cards = args.backend in ("auto", "cuda")
    with distributed.group(timeout=args.peer_timeout, cards=cards) as group, one_voice(group):
        _train(group, args, given)


def _train(group: Group, args: argparse.Namespace, given: argparse.Namespace) -> None:
    """Make or find the run, and train; rank 0 alone prints, and touches the run's folder."""
    args.quiet = args.quiet or not group.is_first
    if distributed.restarted():
        args.resume, args.overwrite = True, False
    console = make_notes(args)
    path = args.out or Path("runs") / _folder_name(args)
    folder = RunFolder(path) if group.is_first else UnwrittenFolder(path)
    saved = of_first(group, lambda: _saved_settings(folder, args, console))
    with everywhere(group):
        if saved:
            args = argparse.Namespace(**vars(args) | saved | vars(given))
        elif args.shards == 1 and "shards" not in given:
            args.shards = group.size
        args.backend = choose_backend(args, console)
        config = Config.resolve(vars(args))
        if saved:
            config.check_resumes(saved)
        events.check(config)
        # A run folder may be a stranger's: nothing is downloaded to a folder that only it names.
        named = "data_dir" in given or ("dataset" in given and config.data_dir is None)
        experiment = _experiment(config, console, download=named or not saved)
        if config.init_from and not saved:
            _init_from(config.init_from, experiment, console)
    check_alike(group, experiment)
    if group.size > 1:
        console.print(f"processes: {group.size}, which share the {config.shards} shards of each batch")
    if args.dry_run:
        _dry_run(experiment, make_console(quiet=not group.is_first))
        return
    with contextlib.ExitStack() as held:
        of_first(group, lambda: held.enter_context(folder.locked()))
        if saved:
            training.resume(folder, experiment, console)
        else:
            of_first(group, lambda: training.begin(folder, experiment, overwrite=args.overwrite))
        console.print(f"folder: {folder.path}")
        of_first(group, lambda: summary.write_skipped(folder.path, experiment.dataset.summary))
        training.train(folder, experiment, console)
        report.finish(folder, experiment, make_console())


def parse(argv: list[str], prog: str = PROG) -> argparse.Namespace:
    """All arguments, with the recipe's and then the defaults for those not given.

    Raises: ValueError, OSError about a recipe that is wrong or not there
    """
    return flags.parse(_parser(prog), argv)


def _about(recipe: str) -> str:
    """What --recipe list says of one recipe."""
    lines = [recipes.about(recipe)]
    if measured := recipes.measured(recipe):
        lines.append(measured)
    return "\n".join([recipe, *(indent(line, "  ") for line in lines)])


def _saved_settings(folder: RunFolder, args: argparse.Namespace, console: Console) -> dict[str, Any] | None:
    """The settings of the run to resume; None if a new one begins."""
    if args.resume and folder.holds_run():
        saved = asdict(folder.saved_config())
        if not usable_cache(saved["cache"]):
            del saved["cache"]
        return saved
    if args.resume:
        console.print(f"{folder.path} holds no checkpoint yet: starting from the beginning")
    elif not (args.overwrite or args.dry_run):
        folder.refuse_existing()
    return None


def _experiment(config: Config, console: Console, *, download: bool) -> Experiment:
    dataset = summary.load(console, config, download=download)
    shape = "×".join(map(str, dataset.train.shape))
    held = f"{len(dataset.validation):,} validation" if dataset.validation else "no validation"
    console.print(
        f"data: {dataset.name}, {len(dataset.train):,} training, {held} and {len(dataset.test):,} test "
        f"images, {shape}, {len(dataset.class_names)} classes"
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
    if taken.notes:
        console.print(f"of the file: {', '.join(taken.notes)}")
    if taken.new:
        console.print(f"for {len(experiment.dataset.class_names)} classes, new: {', '.join(taken.new)}")
    if taken.ignored:
        heads = dict.fromkeys(key.partition(".")[0] for key in taken.ignored)
        console.print(f"ignored: {', '.join(f'{head}.*' for head in heads)}")


def _dry_run(experiment: Experiment, console: Console) -> None:
    """Two training steps, of which the second is timed: the first one warms up."""
    console.print(experiment.model.summary(experiment.image_shape, fuse=not experiment.config.no_fuse))
    before = 0.0
    for step, _ in enumerate(experiment.steps(every=0), 1):
        seconds = experiment.sums["seconds"] - before
        before = experiment.sums["seconds"]
        if step == 2:
            break
    console.print(f"loss of the first batches: {experiment.sums['loss'] / experiment.sums['images']:.4f}")
    estimate = duration(seconds * len(experiment.batches))
    console.print(f"one epoch would take about {estimate} of training; nothing was written")


def _folder_name(args: argparse.Namespace) -> str:
    """The name of the default folder: the recipe's, or another one for each model and dataset."""
    if args.recipe:
        return Path(args.recipe).stem
    kind, colon, path = args.dataset.partition(":")
    parts = [args.model, _file_name(kind), *([_file_name(str(Path(path)))] if colon else [])]
    return "-".join(parts)


def _file_name(text: str) -> str:
    """The text as a readable file name, with a digest of the text where it had to be changed."""
    name = re.sub(r"[^\w.-]+", "-", text)[-LONGEST_FOLDER:].strip("-.")
    if name == text:
        return name
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
    return f"{name}-{digest}".lstrip("-")


def _parser(prog: str, *, defaults: bool = True) -> argparse.ArgumentParser:
    """The parser; without ``defaults`` it returns only what was given on the command line."""
    parser = Parser(
        prog,
        "[options]",
        "Train an image classifier; its metrics, checkpoints, report and plots go to a folder. Without any "
        "option: simple_cnn on the bundled sample of Fashion-MNIST, in a minute or two, without a network.",
    )
    groups = {title: parser.add_argument_group(title) for title in settings.GROUPS}
    _add_folder(groups[settings.WHERE])
    flags.add_all_flags(groups)
    groups[settings.HOW].add_argument(
        "--dry-run", action="store_true", help="load, print the model, time two steps, write nothing"
    )
    add_quiet_flag(groups[settings.WHERE])
    if not defaults:
        for action in parser._actions:
            action.default = argparse.SUPPRESS
    return parser


def _add_folder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder of the run (default: runs/RECIPE or runs/MODEL-DATASET)",
    )  # fmt: skip
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true",
        help="go on with the run in --out; its own settings hold, and need not be given again",
    )  # fmt: skip
    existing.add_argument("--overwrite", action="store_true", help="delete the run in --out first")
