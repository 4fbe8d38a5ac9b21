"""Training simple_cnn on Fashion-MNIST with a plain PyTorch script, to compare `minicnn.train` with.

    python benchmarks/torch_train.py --data-dir DIR [--epochs 3] [--lr 0.004] [--threads 2]

It uses Adam with the one-cycle schedule, like `python -m minicnn.train --model simple_cnn --lr 0.004`.
Prints one line of JSON: test accuracy and seconds of training.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import torch
from torch import nn

from minicnn import data


def simple_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dataset = data.load("fashion-mnist", data_dir=args.data_dir)
    mean, std = float(dataset.mean[0]), float(dataset.std[0])
    tensors = [torch.from_numpy(images.x) for images in (dataset.train, dataset.test)]
    train_x, test_x = ((t.float() / 255 - mean) / std for t in tensors)
    train_y, test_y = (torch.from_numpy(images.y) for images in (dataset.train, dataset.test))
    model = simple_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    steps = math.ceil(len(train_x) / args.batch_size) * args.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, steps, cycle_momentum=False)
    start = time.perf_counter()
    for _ in range(args.epochs):
        for rows in torch.randperm(len(train_x)).split(args.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train_x[rows]), train_y[rows]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            hits = sum(
                (model(x).argmax(1) == y).sum()
                for x, y in zip(test_x.split(256), test_y.split(256), strict=True)
            )
    seconds = time.perf_counter() - start
    print(json.dumps({"accuracy": int(hits) / len(test_y), "seconds": round(seconds, 2)}))


if __name__ == "__main__":
    main()
