"""The section "batches" of scripts/gpu.py: a recipe's batches, made on the card, beside its training step.

step   a training step on a batch that is there, captured
batch  making a batch of the dataset's bytes with the recipe's changes, from one table again and again
both   what a run does: step after step, each with a batch of its own, whose table the host draws meanwhile

All among many that nobody waits for.  The bytes lie on the card, or on the host, from where those of the
next batch are copied in a stream of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from typing import Any

import numpy as np

from minicnn import Trainer, data
from minicnn.app.commands import train
from minicnn.app.settings import Config
from minicnn.data.batches import Batch, Epoch
from minicnn.data.draws import EpochAugment
from minicnn.graph.cast import input_dtype
from scripts import gpu_nets
from scripts.gpu_report import OURS
from scripts.gpu_timings import Keep, Work, in_a_row, small
from scripts.gpu_training import RECIPE

EPOCH = small(234, 2)
"""Batches of an epoch: as many whole ones as Fashion-MNIST has."""
PLACES = {"card": "device", "host": "host"}


def batches(keep: Keep, precision: str) -> None:
    """Keep a row for the step, and for each place of the images one for the batch and one for both."""
    flags = ["--recipe", RECIPE, "--backend", "cuda", "--precision", precision]
    config = Config.resolve(vars(train.parse(flags)))
    net = gpu_nets.subject(config.model, config.batch_size)

    def row(what: str, phase: str, work: Work) -> None:
        keep({"what": what, "phase": phase, "precision": precision, OURS: in_a_row(work)})

    row(f"{RECIPE}, batch {len(net.x)}", "step", gpu_nets.our_run(net, precision))
    for name, place in PLACES.items():
        source = _batches(config, net, place)
        row(f"{RECIPE}, images on the {name}", "batch", _making(source))
        row(
            f"{RECIPE}, images on the {name}",
            "both",
            _training(gpu_nets.our_trainer(net, precision), source),
        )


def _batches(config: Config, net: gpu_nets.Subject, place: str) -> data.Batches:
    """Whole batches of random images."""
    size, shape = len(net.x), tuple(net.x.shape[1:])
    rng = np.random.default_rng(0)
    images = data.Images(
        rng.integers(0, 256, (EPOCH * size, *shape), np.uint8), rng.integers(0, 10, EPOCH * size)
    )
    mean, std = np.full(shape[0], 0.3), np.full(shape[0], 0.35)
    return data.Batches(
        images, size, mean=mean, std=std, augment=config.augment_options(), num_classes=10,
        backend=net.model.bound(), data_on=place,
        dtype=input_dtype(net.model.graph(training=True), net.model.dtype),
    )  # fmt: skip


def _making(batches: data.Batches) -> Work:
    """A call that gets the bytes of a batch, and makes it by the same table each time."""
    images, size = len(batches.images), batches.batch_size
    rows = np.random.default_rng(0).permutation(images)[:size]
    table = EpochAugment(batches.augment, images, batches.images.shape[1:], 0, 0).table(rows)

    def make() -> Any:
        ready = batches.source.ready(batches.source.fetch(rows))
        return batches.backend.make_batch(
            ready.images, ready.rows, table, batches.mean, batches.std, dtype=batches.dtype
        )

    return make


def _training(trainer: Trainer, batches: data.Batches) -> Work:
    """A call that takes a step with the next batch, as a training run does, epoch after epoch."""
    epochs = chain.from_iterable(_pairs(batches.epoch(number)) for number in count())

    def step() -> None:
        epoch, pair = next(epochs)
        trainer.advance(*pair, meanwhile=epoch.prepare)

    return step


def _pairs(epoch: Epoch) -> Iterator[tuple[Epoch, Batch]]:
    """Each batch of an epoch, with the epoch."""
    for pair in epoch:
        yield epoch, pair
