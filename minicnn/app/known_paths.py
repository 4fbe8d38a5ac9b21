"""Which paths in a checkpoint are followed.

Anybody can write any path into a checkpoint.  So `evaluate` reads a folder that a checkpoint names only if
config.json beside it, which a run leaves, names the same.  A checkpoint for passing on, best.safetensors,
has the last part of each path alone, which tells nobody how the author's disk is arranged.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicnn.app.settings import Config
from minicnn.checkpoint import CheckpointError
from minicnn.data.sources import FOLDER, form_of, kind_of
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
    if known and all(getattr(config, key) in (path, _last_part(path)) for key, path in known.items()):
        return replace(config, **known)
    if named is None and (kind := kind_of(config.dataset)):
        raise CheckpointError(
            f"{file}: its dataset is {config.dataset:.60}, which no {CONFIG} beside it confirms: "
            f"name {'the folder' if kind == FOLDER else 'it'} with --dataset {form_of(kind)}"
        )
    return replace(config, data_dir=None)


def _beside(file: Path) -> dict[str, Any]:
    """Where a run that left its settings beside its checkpoint had its data from; nothing if none did."""
    try:
        found = json.loads(read_regular(file.with_name(CONFIG), _MOST_BYTES))
        known = {key: found[key] for key in ("dataset", "data_dir")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return known if isinstance(known["dataset"], str) and isinstance(known["data_dir"], str | None) else {}


def _last_part(value: str | None) -> str | None:
    if value is None:
        return None
    if kind := kind_of(value):
        return f"{kind}:{Path(value.removeprefix(f'{kind}:')).name}"
    return Path(value).name
