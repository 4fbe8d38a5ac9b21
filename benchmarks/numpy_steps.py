"""A training step of the NumPy backend beside PyTorch eager and a NumPy CNN as usually written.

python benchmarks/numpy_steps.py        writes benchmarks/results/numpy_steps.json
"""

from __future__ import annotations

import numpy as np
import torch
from index_im2col import UsualNet
from nets import torch_step
from paired import machine, save, time_in_turn

import minicnn
from minicnn import Trainer, models, optim
from minicnn.torch_reference import to_torch

BATCH, LR, MOMENTUM = 128, 0.05, 0.9


def sides(name: str, rng: np.random.Generator) -> dict[str, object]:
    """The three training steps on one batch from the same weights, checked to give the same losses."""
    x = rng.random((BATCH, 1, 28, 28), np.float32)
    y = rng.integers(0, 10, BATCH)
    model = models.create(name, in_channels=1, num_classes=10, image_size=28, backend="numpy")
    module, usual = to_torch(model), UsualNet(model.state_dict(), name)
    trainer = Trainer(model, optim.SGD(LR, MOMENTUM))
    steps = {
        "minicnn numpy": lambda: trainer.step(x, y),
        "torch eager": torch_step(module, torch.from_numpy(x), torch.from_numpy(y), LR, MOMENTUM),
        "usual numpy": lambda: usual.step(x, y, LR, MOMENTUM),
    }
    for _ in range(3):
        losses = [step() for step in steps.values()]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
    return steps


def main() -> None:
    threads = 2
    minicnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    result = {"machine": machine(threads), "what": f"training step, batch {BATCH}, 28x28, SGD", "nets": {}}
    for name in ("lenet5", "simple_cnn"):
        times = time_in_turn(sides(name, np.random.default_rng(0)), seconds=4.0)
        ours = times["minicnn numpy"]
        ratios = {
            f"{peer} / minicnn": round(times[peer] / ours, 2) for peer in times if times[peer] != ours
        }
        result["nets"][name] = {
            "milliseconds": {k: round(v, 2) for k, v in times.items()},
            "ratios": ratios,
        }
        print(name, result["nets"][name])
    save("numpy_steps", result)


if __name__ == "__main__":
    main()
