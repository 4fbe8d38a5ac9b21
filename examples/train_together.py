"""Trains one model with several processes, each of which computes its share of every batch.

torchrun --nproc-per-node 2 examples/train_together.py
python examples/train_together.py         the same weights, by one process
"""

from __future__ import annotations

import hashlib

from minicnn import Trainer, data, distributed, models, optim

SHARDS = 4


def main() -> str:
    """Train an epoch; a digest of the weights."""
    images = data.load("fashion-mnist-sample", limit_train=512)
    with distributed.group() as group:
        model = models.create("lenet5", in_channels=1, num_classes=10, image_size=28, backend="numpy")
        trainer = Trainer(model, optim.SGD(lr=0.05, momentum=0.9), shards=SHARDS)
        batches = data.Batches(images.train, 64, mean=images.mean, std=images.std)
        losses = [trainer.step(x, y) for x, y in batches.epoch(0)]
        weights = b"".join(array.tobytes() for array in model.state_dict().values())
        digest = hashlib.sha256(weights).hexdigest()[:16]
        if group.is_first:
            print(f"{group.size} processes: loss {losses[0]:.4f} -> {losses[-1]:.4f}, weights {digest}")
    return digest


if __name__ == "__main__":
    main()
