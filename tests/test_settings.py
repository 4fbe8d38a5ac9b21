"""The settings of a run: one declaration each, from which the flag, the default and the check follow."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from minicnn.app import settings
from minicnn.app.commands import train
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint, CheckpointError

DEFAULTS = asdict(Config.resolve(vars(train.parse([]))))
ADDED = {
    "shards", "reduce", "peer_timeout", "sync_batch_norm",
    "recipe", "init_from", "freeze", "augment", "precision", "class_weight", "ema", "tta", "test_every",
    "early_stop", "temperature", "skip_bad", "validation", "group_by", "resize", "cache", "cache_above",
    "data_on", "tensorboard", "no_capture",
}  # fmt: skip
"""What the first checkpoints did not hold."""


def saved_with(config: dict[str, object]) -> Checkpoint:
    return Checkpoint(config, ["a"], (1, 1, 1), [0.0], [1.0], "")


def test_the_command_has_a_flag_for_each_setting_and_five_of_its_own() -> None:
    flags = vars(train.parse([])).keys()
    assert flags - DEFAULTS.keys() == {"out", "resume", "overwrite", "dry_run", "quiet"}
    assert DEFAULTS.keys() <= flags


def test_each_setting_says_what_it_does_under_a_heading() -> None:
    for field in fields(Config):
        assert field.metadata["flag"]["help"]
        assert field.metadata["group"] in settings.GROUPS


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_checkpoint_may_lack_only_what_was_added_later(name: str) -> None:
    saved = saved_with({key: value for key, value in DEFAULTS.items() if key != name})
    if name in ADDED:
        assert asdict(Config.of_checkpoint(Path("c"), saved)) == DEFAULTS
    else:
        with pytest.raises(
            CheckpointError, match=f"^c: its settings: expected {name}, which is not there$"
        ):
            Config.of_checkpoint(Path("c"), saved)


def test_what_does_not_alter_the_result_may_change_on_resume() -> None:
    config = Config.resolve(vars(train.parse(["--threads", "1", "--data-dir", "x", "--save-every", "5"])))
    config.check_resumes(DEFAULTS)
