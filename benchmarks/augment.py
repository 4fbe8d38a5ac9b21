"""How much longer augmentation makes a training step: simple_cnn on the cpp backend, batch 128 at 28x28.

    python benchmarks/augment.py [--threads 2] [--seconds 4]

Three kinds of whole steps take turns, with the time to fetch the batch: with every kind of augmentation,
with a usual choice, and without any.  After that, fetching batches alone is timed, with one kind of
augmentation each.  Writes benchmarks/results/augment.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from paired import machine, save, time_in_turn

from minicnn import Trainer, data, models, optim, set_num_threads
from minicnn.data.augment import Augment

ALL = "rotate=10,zoom=0.1,flip,shift=2,crop=4,cutout=8,brightness=0.2,contrast=0.2,erase=0.5,mixup=0.2"
USUAL = "flip,crop=2,cutout=8"
BATCH = 128


def endless(dataset: data.Dataset, augment: str) -> Iterator[data.batches.Batch]:
    """Full batches without end, epoch after epoch; the smaller last batch of an epoch is left out."""
    batches = data.Batches(
        dataset.train, BATCH, mean=dataset.mean, std=dataset.std, augment=Augment.parse(augment),
        num_classes=10,
    )  # fmt: skip
    epoch = 0
    while True:
        for x, y in batches.epoch(epoch):
            if len(x) == BATCH:
                yield x, y
        epoch += 1


def step(batches: Iterator[data.batches.Batch]) -> Callable[[], float]:
    model = models.create("simple_cnn", in_channels=1, num_classes=10, image_size=28, backend="cpp")
    trainer = Trainer(model, optim.Adam(1e-3))
    return lambda: trainer.step(*next(batches))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    set_num_threads(args.threads)
    dataset = data.load(data.SAMPLE)
    x, _ = next(endless(dataset, ALL))
    assert np.isfinite(x).all()
    assert not np.array_equal(x, next(endless(dataset, "none"))[0])
    steps = time_in_turn(
        {text: step(endless(dataset, text)) for text in ("none", USUAL, ALL)}, seconds=args.seconds
    )
    alone = [*ALL.split(","), "rotate=10,zoom=0.1,shift=2", USUAL, ALL, "none"]
    fetched = time_in_turn(
        {text: partial(next, endless(dataset, text)) for text in alone},
        seconds=args.seconds / len(alone),
    )
    plain = steps["none"]
    save(
        "augment",
        {
            "machine": machine(args.threads),
            "training step, ms": {text: round(ms, 3) for text, ms in steps.items()},
            "step with / without": {text: round(ms / plain, 3) for text, ms in steps.items()},
            "batch alone, ms": {text: round(ms, 3) for text, ms in fetched.items()},
            "all of augmentation / plain step": round((steps[ALL] - plain) / plain, 3),
        },
    )


if __name__ == "__main__":
    main()
