"""Which paths in a checkpoint are followed.

Anybody can write any path into a checkpoint.  So `evaluate` uses a folder that a checkpoint names only if
config.json beside it, which a run leaves, names the same.  A run's folder may be a stranger's too: a folder
for decoded images that it names is used only if it is the user's own and has such images already.

A checkpoint for passing on, best.safetensors, has the last part of each path alone, which tells nobody how
the author's disk is arranged.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicnn.app.settings import Config
from minicnn.checkpoint import CheckpointError
from minicnn.data.sources import FOLDER, form_of, kind_of
from minicnn.data.stored import holds_images
from minicnn.regular_file import read_regular

CONFIG = "config.json"
_MOST_BYTES = 1 << 16
_PATHS = ("dataset", "data_dir", "cache", "init_from", "recipe")


def without_folders(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in which each path is its last part: folder:cats for folder:/home/me/cats."""
    return {key: _last_part(value) if key in _PATHS else value for key, value in settings.items()}


def with_known_paths(file: Path, config: Config, named: str | None) -> Config:
    """The settings of a checkpoint, with the paths of the run's folder if it lies there, else without any.

    ``named`` is the dataset that the user names, if any.

    Raises: CheckpointError naming the file if its dataset is a folder, and neither the user nor the run's
            folder names it
    """
    known = _beside(file)
    confirmed = {
        key: path for key, path in known.items() if getattr(config, key) in (path, _last_part(path))
    }
    if confirmed.keys() >= {"dataset", "data_dir"}:  # a run that goes on may have had another cache since
        return replace(config, **confirmed | {"cache": usable_cache(confirmed.get("cache"))})
    if named is None and (kind := kind_of(config.dataset)):
        raise CheckpointError(
            f"{file}: its dataset is {config.dataset:.60}, which no {CONFIG} beside it confirms: "
            f"name {'the folder' if kind == FOLDER else 'it'} with --dataset {form_of(kind)}"
        )
    return replace(config, data_dir=None, cache=None)


def usable_cache(named: str | None) -> str | None:
    """The folder for decoded images that a run's settings name, if it is to be used: else none is."""
    return named if named and holds_images(Path(named).expanduser()) else None


def _beside(file: Path) -> dict[str, Any]:
    """Where a run that left its settings beside its checkpoint had its data from; nothing if none did."""
    try:
        found = json.loads(read_regular(file.with_name(CONFIG), _MOST_BYTES))
        known = {"dataset": found["dataset"], "data_dir": found["data_dir"], "cache": found.get("cache")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    folders = known["data_dir"], known["cache"]
    texts = isinstance(known["dataset"], str) and all(isinstance(one, str | None) for one in folders)
    return known if texts else {}


def _last_part(value: str | None) -> str | None:
    if value is None:
        return None
    if kind := kind_of(value):
        return f"{kind}:{Path(value.removeprefix(f'{kind}:')).name}"
    return Path(value).name
