"""Whether the position in a run that a checkpoint tells of is one that this run can have."""

from __future__ import annotations

from collections.abc import Mapping

from minicnn.checkpoint import Checkpoint
from minicnn.data import Batches


def check_position(
    saved: Checkpoint, batches: Batches, *, judged: Mapping[str, int], averages: bool
) -> None:
    """Refuse a checkpoint that a run with these batches and settings cannot have written.

    ``judged`` has the images that epochs are judged by, "test" or "validation", and after each how many
    epochs they are, 0 for never; ``averages`` says whether weights are averaged.

    Raises: ValueError naming the field, what was expected and what came
    """
    if saved.batch > len(batches):
        raise ValueError(f"batch: expected at most the epoch's {len(batches)}, got {saved.batch}")
    whole = saved.batch == len(batches)
    images = len(batches.images) if whole else saved.batch * batches.batch_size
    if saved.sums["images"] != images:
        raise ValueError(
            f"sums: expected {images} images in {saved.batch} batches, got {saved.sums['images']}"
        )
    steps = saved.epoch * len(batches) + saved.batch
    if saved.optimizer_steps != steps:
        raise ValueError(
            f"optimizer_steps: expected {steps}, after {saved.epoch} epochs and {saved.batch} batches of "
            f"{len(batches)}, got {saved.optimizer_steps}"
        )
    if averages != bool(saved.training):
        expected = "the weights that --ema averages" if averages else "none, since --ema is off"
        raise ValueError(f"training: expected {expected}, got {len(saved.training)} tensors")
    for entry in saved.history:
        parts = [part for part, every in judged.items() if every and entry["epoch"] % every == 0]
        for key in (f"{part}_{score}" for part in parts for score in ("loss", "accuracy")):
            if key not in entry:
                raise ValueError(f"history: epoch {entry['epoch']}: expected {key}, which is not there")
