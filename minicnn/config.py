"""The settings of a run: what decides its result, as config.json and the checkpoint hold them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from minicnn.data.augment import Augment
from minicnn.schema import check

RATES = {"sgd": 0.1, "adam": 3e-3, "adamw": 3e-3, "rmsprop": 1e-3}
"""Default learning rates: the highest of the schedule."""

_FREE = ("threads", "data_dir", "save_every")
"""Settings that --resume may change."""


@dataclass(frozen=True)
class Config:
    """One field a flag of ``python -m minicnn.train`` that a run keeps; None where one does not apply."""

    backend: str
    model: str
    dataset: str
    data_dir: str | None
    image_size: int | None
    limit_train: int | None
    limit_test: int | None
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    momentum: float | None
    nesterov: bool
    weight_decay: float | None
    schedule: str
    warmup: float | None
    clip_norm: float | None
    label_smoothing: float
    no_fuse: bool
    seed: int
    threads: int | None
    save_every: float
    augment: str | None = None
    ema: float = 0.0
    tta: str = "none"
    test_every: int = 1
    class_weight: str = "none"
    early_stop: int | None = None
    recipe: str | None = None
    init_from: str | None = None
    freeze: str | None = None
    tf32: bool = False

    @classmethod
    def resolve(cls, flags: dict[str, Any]) -> Self:
        """The settings of a complete set of flags, optimizer defaults filled in.

        Raises: ValueError naming a flag that the chosen optimizer does not have
        """
        flags = {f.name: flags[f.name] for f in fields(cls)}
        optimizer = flags["optimizer"]
        if flags["momentum"] is not None and optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"--momentum is for sgd and rmsprop, not for --optimizer {optimizer}")
        if flags["nesterov"] and optimizer != "sgd":
            raise ValueError(f"--nesterov is for sgd, not for --optimizer {optimizer}")
        if flags["lr"] is None:
            flags["lr"] = RATES[optimizer]
        if flags["momentum"] is None and optimizer == "sgd":
            flags["momentum"] = 0.9
        if flags["augment"] is not None:
            augment = Augment.parse(flags["augment"])
            flags["augment"] = str(augment) if augment != Augment() else None
        return cls(**flags)

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        """The settings that a checkpoint holds; those that it is too old to know are the defaults.

        Raises: ValueError naming a setting that is missing, unknown or of another type
        """
        check(cls, saved)
        return cls(**saved)

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
        for key, value in vars(self).items():
            if key in _FREE or (key == "epochs" and endless):
                continue
            if value != saved.get(key):
                wrong.append(f"--{_flag(key)} {saved.get(key)}, got {value}")
        if wrong:
            why = ""
            if self.epochs != saved.get("epochs"):
                why = "; only --schedule constant lets --epochs change: the others are planned over all"
            raise ValueError(
                f"--resume: expected the run's own {' and '.join(wrong)}; "
                f"leave the flag out, or start a new run with another --out{why}"
            )


def _flag(key: str) -> str:
    return key.replace("_", "-")
