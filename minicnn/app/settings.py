"""The settings of a run, each declared once with its flag, default and help.

What decides a run's result is a field of `Config`.  The parser of ``python -m minicnn.train`` is made of
the fields, config.json and the checkpoint hold them, and --resume compares them.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from minicnn import data, models, recipes, schedules
from minicnn.app.command_line import number, power_of_two, whole_number
from minicnn.backends.image_source import PLACES
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.data.augment import Augment, help_text
from minicnn.data.decode import IN_MEMORY
from minicnn.data.resize import RESIZE, height_width
from minicnn.data.sources import FORMS
from minicnn.data.views import TTA
from minicnn.distributed import TIMEOUT
from minicnn.distributed.step import REDUCE
from minicnn.precision import PRECISIONS
from minicnn.schema import check, short

RATES = {"sgd": 0.1, "adam": 3e-3, "adamw": 3e-3, "rmsprop": 1e-3}
"""Default learning rates: the highest of the schedule."""

MOST_THREADS = 1024
MB = 1_000_000
MOST_SEED = (1 << 63) - 1

LIST = "list"
"""What --recipe takes besides recipes: it prints them."""

WHAT, HOW = "what to train, and on what", "how to train"
LEARNING, WHERE = "how to learn", "where results go"
GROUPS = (WHAT, HOW, LEARNING, WHERE)
"""The headings under which --help lists the flags."""


class _OneOrTwo(argparse.Action):
    """Takes one number or two; two that are equal are one."""

    def __call__(
        self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, __: str | None = None
    ) -> None:
        if len(values) > 2:
            raise argparse.ArgumentError(self, f"expected one number or two, got {len(values)}")
        setattr(namespace, self.dest, values[0] if len(set(values)) == 1 else tuple(values))


def setting(
    group: str, *, added: bool = False, free: bool = False, shorthand: tuple[str, str] | None = None,
    **flag: Any,
) -> Any:  # fmt: skip
    """A field of `Config`.

    ``flag`` is what argparse's ``add_argument`` takes besides the name, which is the field's.  --resume
    may change a ``free`` setting.  A checkpoint may lack a setting that was ``added`` after the first
    version: it had the default then.  ``shorthand`` is another flag, and the value that it stands for.
    """
    default: dict[str, Any] = {"default": flag.get("default")} if added else {}
    metadata = {"group": group, "flag": flag, "free": free, "shorthand": shorthand}
    return field(metadata=metadata, **default)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run; None where one does not apply."""

    recipe: str | None = setting(
        WHAT, added=True, metavar="NAME",
        help=f"take the flags of a recipe, {', '.join(recipes.names())} or FILE.toml; flags beside it win; "
        f"{LIST} tells what each recipe reaches (default: none)",
    )  # fmt: skip
    model: str = setting(
        WHAT, default="simple_cnn", choices=models.names(), metavar="NAME",
        help=f"the network: {', '.join(models.names())}",
    )  # fmt: skip
    dataset: str = setting(
        WHAT, default=data.SAMPLE, metavar="NAME",
        help=f"{', '.join(data.names())}; or images of your own: {', '.join(FORMS)}, of which folder:DIR "
        "has one folder of images a class",
    )  # fmt: skip
    data_dir: str | None = setting(
        WHAT, free=True, metavar="DIR", help="where datasets lie, and are downloaded to (default: ./data)"
    )
    image_size: int | tuple[int, int] | None = setting(
        WHAT, type=whole_number(1), nargs="+", action=_OneOrTwo, metavar=("N", "W"),
        help="scale images to N by N pixels, or to height N and width W (default: as they are)",
    )  # fmt: skip
    resize: str = setting(
        WHAT, added=True, choices=RESIZE, default="stretch",
        help="how an image of other proportions gets that size: all of it stretched, its middle cropped, "
        "or all of it padded with black",
    )  # fmt: skip
    skip_bad: bool = setting(
        WHAT, added=True, action="store_true", default=False,
        help="leave out those of your own files that are no intact images, and name them in skipped.txt",
    )  # fmt: skip
    cache: str | None = setting(
        WHAT, added=True, free=True, metavar="DIR",
        help="where images are kept decoded if they are too many for memory (default: in the user's cache)",
    )  # fmt: skip
    cache_above: int = setting(
        WHAT, added=True, free=True, type=whole_number(0), default=IN_MEMORY // MB, metavar="MB",
        help="keep images of your own in memory up to so many megabytes, decoded; more go to --cache",
    )  # fmt: skip
    init_from: str | None = setting(
        WHAT, added=True, metavar="FILE",
        help="start from these weights, a .safetensors file or torch's .pt or .pth, with a new last layer "
        "for another number of classes (default: from random ones)",
    )  # fmt: skip
    freeze: str | None = setting(
        WHAT, added=True, metavar="NAME[,...]",
        help="layers to leave as they are, with all below them, as in conv1,layer?,*.bn1 (default: none)",
    )  # fmt: skip
    validation: float = setting(
        WHAT, added=True, type=number(0, 1), default=0.1, metavar="SHARE",
        help="share of the training images to hold out, where folder:DIR has no val/: their accuracy "
        "chooses the best epoch; 0: none, and the last epoch's weights are the ones kept",
    )  # fmt: skip
    group_by: str | None = setting(
        WHAT, added=True, metavar="PATTERN",
        help="keep images of one clip, patient or day in one part: a regular expression whose first group, "
        "or else all that it matches, names the group in a path below folder:DIR (default: no groups)",
    )  # fmt: skip
    limit_train: int | None = setting(
        WHAT, type=whole_number(1), metavar="N",
        help="use only N training images, those held out included (default: all)",
    )  # fmt: skip
    limit_test: int | None = setting(
        WHAT, type=whole_number(1), metavar="N", help="use only N test images, and N of val/ (default: all)"
    )
    augment: str | None = setting(
        WHAT,
        added=True,
        metavar="LIST",
        help=f"change training images (default: as they are); {help_text()}",
    )

    backend: str = setting(
        HOW, default="auto", choices=("auto", "numpy", "cpp", "cuda"),
        help="what computes: readable NumPy, compiled C++, an NVIDIA GPU, or the fastest there is",
    )  # fmt: skip
    threads: int | None = setting(
        HOW,
        free=True,
        type=whole_number(1, MOST_THREADS),
        metavar="N",
        help="CPU threads to use (default: all cores)",
    )
    data_on: str = setting(
        HOW, added=True, free=True, choices=PLACES, default="auto",
        help="where cuda reads the images of an epoch: on the device, or on the host, each batch copied "
        "while the one before is computed (default: on the device where they fit)",
    )  # fmt: skip
    precision: str = setting(
        HOW, added=True, choices=PRECISIONS, default="float32", shorthand=("--tf32", "tf32"),
        help="bfloat16: activations and the factors of products have 8 bits of mantissa, all else is "
        "float32; tf32: cuda's tensor cores round the factors of products to 11 bits",
    )  # fmt: skip
    epochs: int = setting(HOW, type=whole_number(1), default=3, metavar="N", help="passes over the data")
    batch_size: int = setting(HOW, type=whole_number(1), default=128, metavar="N", help="images in a step")
    shards: int = setting(
        HOW, added=True, type=power_of_two, default=1, metavar="S",
        help="cut each batch into so many parts, a power of two, whose gradients are added: the bits of a "
        "run depend on S, not on the number of processes; by default, as torchrun's processes",
    )  # fmt: skip
    reduce: str = setting(
        HOW, added=True, choices=REDUCE, default="ordered",
        help="how processes add their gradients: ordered, with the same bits for any number of them; or "
        "fast, in the order of the library that exchanges them, without that promise",
    )  # fmt: skip
    sync_batch_norm: bool = setting(
        HOW, added=True, action="store_true", default=False,
        help="batch norms learn from the whole batch, not from each of its shards by itself",
    )  # fmt: skip
    peer_timeout: float = setting(
        HOW, added=True, free=True, type=number(0, above=True), default=TIMEOUT, metavar="SECONDS",
        help="under torchrun: give up a process that has not answered for so long",
    )  # fmt: skip
    seed: int = setting(
        HOW, type=whole_number(0, MOST_SEED), default=0, metavar="N",
        help="for first weights, shuffling and dropout: the same seed gives the same run",
    )  # fmt: skip
    no_fuse: bool = setting(
        HOW, action="store_true", default=False,
        help="run each layer by itself, not fused with its neighbours",
    )  # fmt: skip
    no_capture: bool = setting(
        HOW, added=True, free=True, action="store_true", default=False,
        help="on cuda: launch each kernel of a step by itself, not the whole step as one CUDA graph",
    )  # fmt: skip

    optimizer: str = setting(
        LEARNING, choices=tuple(RATES), default="adam", help="how weights follow gradients"
    )
    lr: float = setting(
        LEARNING, type=number(0, above=True), metavar="X",
        help="learning rate; the highest one, if the schedule varies it "
        f"(default: {', '.join(f'{rate:g} for {name}' for name, rate in RATES.items())})",
    )  # fmt: skip
    schedule: str = setting(
        LEARNING, choices=schedules.NAMES, default="onecycle",
        help="how the learning rate changes over the run",
    )  # fmt: skip
    warmup: float | None = setting(
        LEARNING, type=number(0, 1), metavar="X",
        help="share of the run, from 0 to 1, in which the learning rate rises (default: 0.3 for onecycle, "
        "else 0)",
    )  # fmt: skip
    momentum: float | None = setting(
        LEARNING, type=number(0, 1), metavar="X", help="for sgd (default: 0.9) and rmsprop (default: 0)"
    )
    nesterov: bool = setting(
        LEARNING, action=argparse.BooleanOptionalAction, default=False, help="Nesterov's momentum, for sgd"
    )
    weight_decay: float | None = setting(
        LEARNING, type=number(0), metavar="X", help="pull weights to 0 (default: 0.01 for adamw, else 0)"
    )
    clip_norm: float | None = setting(
        LEARNING, type=number(0, above=True), metavar="X",
        help="scale all gradients down to this Euclidean norm together (default: off)",
    )  # fmt: skip
    label_smoothing: float = setting(
        LEARNING, type=number(0, 1), default=0.0, metavar="X",
        help="share of a label, from 0 to 1, spread over all classes",
    )  # fmt: skip
    class_weight: str = setting(
        LEARNING, added=True, choices=("none", "balanced"), default="none",
        help="balanced: rare classes count more, so that in the loss all count alike; refused where "
        "--label-smoothing would then favour a very rare class everywhere",
    )  # fmt: skip
    ema: float = setting(
        LEARNING, added=True, type=number(0, 1), default=0.0, metavar="DECAY",
        help="test and save a moving average of the weights instead of the last ones, 0.999 say; 0: off",
    )  # fmt: skip
    tta: str = setting(
        LEARNING, added=True, choices=TTA, default="none",
        help="test-time augmentation: flip averages the logits of each image and its mirror image, "
        "flip-shift also of both moved by a pixel along the diagonal",
    )  # fmt: skip
    test_every: int | None = setting(
        LEARNING, added=True, type=whole_number(1), metavar="N",
        help="test after each Nth epoch too, for the curves; it chooses nothing (default: test once, at "
        "the end)",
    )  # fmt: skip
    early_stop: int | None = setting(
        LEARNING, added=True, type=whole_number(1), metavar="N",
        help="stop when the loss of the validation images has not fallen for N epochs (default: off)",
    )  # fmt: skip
    temperature: bool = setting(
        LEARNING, added=True, action="store_true", default=False,
        help="after each epoch, fit to the validation images (so --early-stop must hold some out) a number "
        "that logits are divided by, so that answers are right as often as they are sure",
    )  # fmt: skip

    save_every: float = setting(
        WHERE, free=True, type=number(0), default=60.0, metavar="SECONDS",
        help="checkpoint this often within an epoch; there is always one at its end",
    )  # fmt: skip
    tensorboard: bool = setting(
        WHERE, added=True, free=True, action="store_true", default=False,
        help="write event files for TensorBoard too, in tensorboard/ below the run's folder; needs "
        "pip install 'minicnn[tensorboard]'",
    )  # fmt: skip

    def __post_init__(self) -> None:
        size: Any = self.image_size
        if isinstance(size, list):  # as JSON has it
            object.__setattr__(self, "image_size", tuple(size))

    @classmethod
    def resolve(cls, flags: dict[str, Any]) -> Self:
        """The settings of a complete set of flags, with the defaults that depend on the optimizer.

        Raises: ValueError naming a flag that does not fit the others
        """
        flags = {f.name: flags[f.name] for f in fields(cls)}
        optimizer = flags["optimizer"]
        if flags["momentum"] is not None and optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"--momentum is for sgd and rmsprop, not for --optimizer {optimizer}")
        if flags["nesterov"] and optimizer != "sgd":
            raise ValueError(f"--nesterov is for sgd, not for --optimizer {optimizer}")
        if flags["early_stop"] and not flags["validation"]:
            raise ValueError("--early-stop judges by validation images, and --validation 0 leaves none")
        if flags["data_on"] != "auto" and flags["backend"] != "cuda":
            raise ValueError(
                f"--data-on {flags['data_on']} is for cuda, not for --backend {flags['backend']}"
            )
        if flags["lr"] is None:
            flags["lr"] = RATES[optimizer]
        if flags["momentum"] is None and optimizer == "sgd":
            flags["momentum"] = 0.9
        if flags["augment"] is not None:
            augment = Augment.parse(flags["augment"])
            flags["augment"] = str(augment) if augment != Augment() else None
        return cls(**flags)

    @classmethod
    def of_checkpoint(cls, path: Path, saved: Checkpoint) -> Self:
        """The settings in a checkpoint that was read from ``path``; one that it lacks has its default.

        Raises: CheckpointError naming the file and a setting that is missing, unknown, of another type or
                one that its flag does not take
        """
        try:
            found = _with_precision(saved.config)
            check(cls, found)
            config = cls(**found)
            for f in fields(cls):
                _check_taken(f.name, getattr(config, f.name), **f.metadata["flag"])
            config.augment_options()
            sizes, size = saved.image_shape[1:], config.image_size
            if size is not None and sizes != height_width(size):
                raise ValueError(f"image_size: expected the images' {sizes}, got {config.image_size}")
        except ValueError as error:
            raise CheckpointError(f"{path}: its settings: {error}") from None
        return config

    def optimizer_options(self) -> dict[str, Any]:
        """What `optim.create` takes besides name and rate."""
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        if self.nesterov:
            options["nesterov"] = True
        return {key: value for key, value in options.items() if value is not None}

    def augment_options(self) -> Augment:
        """How training images are changed."""
        return Augment.parse(self.augment or "none")

    def check_resumes(self, saved: dict[str, Any]) -> None:
        """The settings lead to the same result as those of the run to be resumed.

        Raises: ValueError naming each flag that does not
        """
        endless = self.schedule == "constant" and not self.warmup
        saved = {f.name: f.default for f in fields(self) if f.default is not MISSING} | saved
        wrong = []
        for f in fields(self):
            if f.metadata["free"] or (f.name == "epochs" and endless):
                continue
            before, now = saved.get(f.name), getattr(self, f.name)
            if now != before:
                wrong.append(f"{flag_of(f.name)} {before}, got {now}")
        if wrong:
            why = ""
            if self.epochs != saved.get("epochs"):
                why = "; only --schedule constant lets --epochs change: the others are planned over all"
            raise ValueError(
                f"--resume: expected the run's own {' and '.join(wrong)}; "
                f"leave the flag out, or start a new run with another --out{why}"
            )


def _with_precision(saved: dict[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint, where "tf32" was a setting before there was "precision"."""
    if "tf32" not in saved or "precision" in saved:
        return saved
    tf32 = saved["tf32"]
    if not isinstance(tf32, bool):
        raise ValueError(f"tf32: expected true or false, got {short(tf32)}")
    found = {name: value for name, value in saved.items() if name != "tf32"}
    return found | {"precision": "tf32" if tf32 else "float32"}


def _check_taken(name: str, value: Any, **flag: Any) -> None:
    """Raise ValueError if a setting has a value that its flag, declared so, would refuse."""
    if value is None:
        return
    if "choices" in flag and value not in flag["choices"]:
        raise ValueError(f"{name}: expected one of {', '.join(flag['choices'])}, got {short(value)}")
    if "type" in flag:
        try:
            for one in value if isinstance(value, tuple) else [value]:
                flag["type"](str(one))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{name}: {error}") from None


def in_memory(args: argparse.Namespace | Config) -> int:
    """The bytes of --cache-above."""
    above: int = args.cache_above
    return above * MB


def flag_of(name: str) -> str:
    """The flag of a setting: --batch-size of batch_size."""
    return f"--{name.replace('_', '-')}"
