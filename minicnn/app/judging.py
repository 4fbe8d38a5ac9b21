"""The images that a checkpoint is judged by: those of its training's dataset, or of one that is named."""

from __future__ import annotations

from pathlib import Path

from minicnn import data
from minicnn.app.settings import Config
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.data.decode import IN_MEMORY, Work
from minicnn.data.judged import Judged, Learnt, judge_named, judge_own_source, judge_source
from minicnn.data.progress import OnProgress, ignore
from minicnn.data.record import SplitRecord
from minicnn.data.sources import kind_of, place_of


def images_to_judge(
    file: Path, saved: Checkpoint, config: Config, named: str | None, *, data_dir: str | None = None,
    limit: int | None = None, skip_bad: bool = False, cache: str | None = None, in_memory: int = IN_MEMORY,
    progress: OnProgress = ignore,
) -> Judged:  # fmt: skip
    """The images to test a checkpoint on, which it did not learn from.

    Args:   file the checkpoint's · named the dataset that the user names, None for that of the training ·
            limit at most so many images, None for as many as in training · the others as `data.load`'s
    Raises: DataError, CheckpointError naming what does not fit
    """
    name = named or config.dataset
    try:
        record = SplitRecord.of_json(saved.split)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from None
    learnt = Learnt(saved.class_names, saved.image_shape, record)
    same = name == config.dataset
    if kind_of(name):
        cache = cache or (config.cache if same else None)
        own = _is_own(name, config)
        judge = judge_own_source if own else judge_source
        work = Work(
            resize=config.resize, cache=Path(cache) if cache else None, in_memory=in_memory,
            skip_bad=skip_bad or (same and config.skip_bad), progress=progress,
        )  # fmt: skip
        limit = limit or (config.limit_test if own else None)
        return judge(name, learnt, work, limit=limit, seed=config.seed)
    dataset = data.load(
        name,
        data_dir=data_dir or (config.data_dir if same else None),
        image_size=saved.image_shape[1:],
        resize=config.resize,
        validation=config.validation if same else None,
        limit_train=config.limit_train if same else None,
        limit_test=limit or (config.limit_test if same else None),
        seed=config.seed,
        download=named is not None,  # a file does not decide on it
        progress=progress,
    )
    judged = judge_named(name, dataset.test, dataset.class_names, learnt)
    whole = same and "validation" in saved.config and not limit
    if whole and dataset.fingerprint != saved.fingerprint:
        judged.notes.append("these are not the data of the training: their fingerprint is another one")
    return judged


def _is_own(name: str, config: Config) -> bool:
    """Whether a source is the one that the model was trained on."""
    kind = kind_of(name)
    return (
        kind == kind_of(config.dataset) and place_of(name).resolve() == place_of(config.dataset).resolve()
    )
