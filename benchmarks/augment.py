"""What augmentation costs: of a training step on the cpp backend, and against other libraries.

    python benchmarks/augment.py [--threads 2] [--seconds 4]

Three kinds of whole simple_cnn steps take turns, batch 128 at 28x28, with the time to fetch the batch: with
every kind of augmentation, with a usual choice, and without any.  Then making a batch alone is timed: the
operation by itself with each change, and with the drawing of its table against torchvision.transforms.v2
and Kornia, which draw numbers too.  torchvision draws once for a whole batch, the others for each image.
Kornia is timed where it is installed.  Writes benchmarks/results/augment.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from paired import machine, save, time_in_turn, version_of

from minicnn import Trainer, data, models, optim, set_num_threads
from minicnn.backends import get_backend
from minicnn.data.augment import Augment

ALL = "rotate=10,zoom=0.1,flip,shift=2,crop=4,cutout=8,brightness=0.2,contrast=0.2,erase=0.5,mixup=0.2"
USUAL = "flip,crop=2,cutout=8"
PEERS = {
    "flip, crop, erase": "flip,crop=2,erase=0.5",
    "flip, crop, warp, brightness, contrast, erase": (
        "flip,crop=2,rotate=10,zoom=0.1,shift=2,brightness=0.2,contrast=0.2,erase=0.5"
    ),
}
"""What is compared with other libraries."""
BATCH = 128


def batches(dataset: data.Dataset, augment: str, size: int = BATCH) -> data.Batches:
    return data.Batches(
        dataset.train, size, mean=dataset.mean, std=dataset.std, augment=Augment.parse(augment),
        num_classes=10, backend=get_backend("cpp"),
    )  # fmt: skip


def endless(dataset: data.Dataset, augment: str) -> Iterator[data.batches.Batch]:
    """Full batches without end, epoch after epoch; the smaller last batch of an epoch is left out."""
    source, epoch = batches(dataset, augment), 0
    while True:
        for x, y in source.epoch(epoch):
            if len(x) == BATCH:
                yield x, y
        epoch += 1


def step(source: Iterator[data.batches.Batch]) -> Callable[[], float]:
    model = models.create("simple_cnn", in_channels=1, num_classes=10, image_size=28, backend="cpp")
    trainer = Trainer(model, optim.Adam(1e-3))
    return lambda: trainer.step(*next(source))


def operation(dataset: data.Dataset, augment: str) -> Callable[[], Any]:
    """make_batch again and again with the table of one batch."""
    source = batches(dataset, augment)
    epoch = source.epoch(0)
    epoch.prepare()
    plan = epoch._plan
    assert plan is not None
    statistics = source.mean, source.std
    return partial(source.backend.make_batch, dataset.train.x, plan.fetched, plan.table, *statistics)


def in_torchvision(dataset: data.Dataset, warp: bool, *, change: bool = True) -> Callable[[], Any]:
    import torch
    from torchvision.transforms import v2

    images, order = torch.from_numpy(dataset.train.x), torch.randperm(len(dataset.train))[:BATCH]
    bilinear = v2.InterpolationMode.BILINEAR
    changes: list[Any] = []
    if change:
        changes = [v2.RandomHorizontalFlip(), v2.RandomCrop(28, padding=2)]
        if warp:
            changes += [
                v2.RandomAffine(10, (2 / 28, 2 / 28), (0.9, 1.1), interpolation=bilinear),
                v2.ColorJitter(0.2, 0.2),
            ]
    normal = v2.Normalize(dataset.mean.tolist(), dataset.std.tolist())
    erase = [v2.RandomErasing(0.5)] if change else []
    chain = v2.Compose([*changes, v2.ToDtype(torch.float32, scale=True), normal, *erase])
    return lambda: chain(images[order])


def in_kornia(dataset: data.Dataset, warp: bool, *, change: bool = True) -> Callable[[], Any]:
    import kornia.augmentation as k
    import torch

    images, order = torch.from_numpy(dataset.train.x), torch.randperm(len(dataset.train))[:BATCH]
    changes: list[Any] = []
    if change:
        changes = [k.RandomHorizontalFlip(), k.RandomCrop((28, 28), padding=2)]
        if warp:
            changes += [k.RandomAffine(10.0, (2 / 28, 2 / 28), (0.9, 1.1)), k.ColorJiggle(0.2, 0.2)]
    normal = k.Normalize(torch.from_numpy(dataset.mean).float(), torch.from_numpy(dataset.std).float())
    erase = [k.RandomErasing(p=0.5)] if change else []
    chain = torch.nn.Sequential(*changes, normal, *erase)
    return lambda: chain(images[order].float() / 255)


def against_peers(dataset: data.Dataset, seconds: float) -> dict[str, Any]:
    """Thousands of images a second of each side, and how many times as many minicnn makes."""
    peers = {"torchvision v2": in_torchvision}
    if find_spec("kornia"):
        peers["kornia"] = in_kornia
    plain = operation(dataset, "none")().numpy()
    for make in peers.values():  # without a change, all sides make the same kind of batch
        theirs = make(dataset, False, change=False)()
        assert theirs.shape == plain.shape
        assert abs(float(theirs.mean()) - plain.mean()) < 0.1
    found: dict[str, Any] = {}
    for number, (what, augment) in enumerate(PEERS.items()):
        sides: dict[str, Callable[[], Any]] = {"minicnn": partial(next, endless(dataset, augment))}
        sides |= {name: make(dataset, bool(number)) for name, make in peers.items()}
        ms = time_in_turn(sides, seconds=seconds)
        found[what] = {
            "thousand images a second": {side: round(BATCH / t, 1) for side, t in ms.items()},
            "minicnn / other": {s: round(t / ms["minicnn"], 2) for s, t in ms.items() if s != "minicnn"},
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    set_num_threads(args.threads)
    dataset = data.load(data.SAMPLE)
    numpy = data.Batches(dataset.train, BATCH, mean=dataset.mean, std=dataset.std, num_classes=10,
                         augment=Augment.parse(ALL))  # fmt: skip
    x, _ = next(endless(dataset, ALL))
    assert np.array_equal(x.numpy(), next(numpy.epoch(0))[0])
    steps = time_in_turn(
        {text: step(endless(dataset, text)) for text in ("none", USUAL, ALL)}, seconds=args.seconds
    )
    alone = [*ALL.split(","), "rotate=10,zoom=0.1,shift=2", USUAL, ALL, "none"]
    made = time_in_turn(
        {text: operation(dataset, text) for text in alone}, seconds=args.seconds / len(alone)
    )
    fetched = time_in_turn(
        {text: partial(next, endless(dataset, text)) for text in ("none", USUAL, ALL)},
        seconds=args.seconds / 4,
    )
    plain = steps["none"]
    save(
        "augment",
        {
            "machine": machine(args.threads)
            | {name: version_of(name) for name in ("torchvision", "kornia")},
            "training step, ms": {text: round(ms, 3) for text, ms in steps.items()},
            "step with / without": {text: round(ms / plain, 3) for text, ms in steps.items()},
            "batch alone, ms": {text: round(ms, 3) for text, ms in made.items()},
            "batch with its table, ms": {text: round(ms, 3) for text, ms in fetched.items()},
            "batch with its table / plain step": {t: round(ms / plain, 4) for t, ms in fetched.items()},
            "all of augmentation / plain step": round((steps[ALL] - plain) / plain, 3),
            "against peers": against_peers(dataset, args.seconds),
        },
    )


if __name__ == "__main__":
    main()
