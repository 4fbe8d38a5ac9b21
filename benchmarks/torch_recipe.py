"""A recipe of minicnn in plain PyTorch, the peer of `python -m minicnn.train --recipe NAME`.

    python benchmarks/torch_recipe.py --recipe fashion-quick [--channels-last] [flags of train]

The same net with the same first weights, the same augmented batches, schedule, optimizer, averages and
flips; everything that is computed from a batch is torch.nn, autograd and torch.optim.  Prints one JSON
line: accuracy on the test images after the last epoch.  Recipes hold no validation images out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minicnn import data
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.settings import Config
from minicnn.data.views import views
from minicnn.ops.make_batch import Table, make_batch
from minicnn.torch_reference import to_torch

OPTIMIZERS = {
    "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}  # fmt: skip
TEST_BATCH = 256


class TorchRun:
    """The run of these settings, computed by PyTorch.

    The first weights, batches, schedule and class weights are those of minicnn's experiment, which
    computes nothing.
    """

    def __init__(self, config: Config, dataset: data.Dataset, *, channels_last: bool = False) -> None:
        for flag in ("early_stop", "init_from", "freeze", "validation"):
            if value := getattr(config, flag):
                name = flag.replace("_", "-")
                raise ValueError(f"--{name}: expected none, as this script does without, got {value}")
        self.config, self.dataset = config, dataset
        self.plan = Experiment(config, dataset)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.module = to_torch(self.plan.model).to(memory_format=self.format)
        options = config.optimizer_options()
        self.optimizer = OPTIMIZERS[config.optimizer](self.module.parameters(), config.lr, **options)
        weight = self.plan.trainer.class_weight
        self.loss = nn.CrossEntropyLoss(
            None if weight is None else torch.as_tensor(weight), label_smoothing=config.label_smoothing
        )
        self.steps = 0
        self.averages: dict[str, Tensor] = {}

    def train_epoch(self, epoch: int) -> None:
        self.module.train()
        for x, y in self.plan.batches.epoch(epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.schedule(self.steps)
            self.optimizer.zero_grad()
            inputs = torch.from_numpy(x).contiguous(memory_format=self.format)
            self.loss(self.module(inputs), torch.from_numpy(y)).backward()
            if self.config.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
            self.optimizer.step()
            if self.config.ema:
                self._average()
            self.steps += 1

    @torch.no_grad()
    def accuracy(self) -> float:
        """Share of the test images that are right; with averages and flips, if the recipe has them."""
        own = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(own | self.averages)
        self.module.eval()
        right = sum(int((logits.argmax(1) == y).sum()) for logits, y in self._test_logits())
        self.module.load_state_dict(own)
        return right / len(self.dataset.test)

    def _test_logits(self) -> Iterator[tuple[Tensor, Tensor]]:
        test = self.dataset.test
        for start in range(0, len(test), TEST_BATCH):
            rows = np.arange(start, min(start + TEST_BATCH, len(test)))
            logits = [
                share * self._logits(rows, table) for share, table in views(len(rows), self.config.tta)
            ]
            yield torch.stack(logits).sum(0), torch.from_numpy(test.y[rows])

    def _logits(self, rows: NDArray[np.int64], table: Table) -> Tensor:
        """Of test images that are changed as the table says."""
        test = self.dataset.test
        mean, std = (np.asarray(a, np.float64) for a in (self.dataset.mean, self.dataset.std))
        x = torch.from_numpy(make_batch(test.x, test.locate(rows), table, mean, std))
        return self.module(x.contiguous(memory_format=self.format))

    @torch.no_grad()
    def _average(self) -> None:
        now = {name: t for name, t in self.module.state_dict().items() if t.is_floating_point()}
        if self.averages:
            decay = min(self.config.ema, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(list(self.averages.values()), list(now.values()), 1 - decay)
        else:
            self.averages = {name: tensor.clone() for name, tensor in now.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels-last", action="store_true")
    own, flags = parser.parse_known_args()
    args = train.parse([*flags, "--backend", "numpy"])
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    config = Config.resolve(vars(args))
    dataset = data.load(
        config.dataset, data_dir=config.data_dir, image_size=config.image_size, seed=config.seed,
        limit_train=config.limit_train, limit_test=config.limit_test,
    )  # fmt: skip
    run = TorchRun(config, dataset, channels_last=own.channels_last)
    for number in range(1, config.epochs + 1):
        run.train_epoch(number - 1)
        print(f"epoch {number} of {config.epochs}", file=sys.stderr, flush=True)
        if number == config.epochs or (config.test_every and number % config.test_every == 0):
            accuracy = run.accuracy()
    assert np.isfinite([float(p.detach().sum()) for p in run.module.parameters()]).all()
    print(json.dumps({"accuracy": accuracy}))


if __name__ == "__main__":
    main()
