"""PyTorch training scripts, with and without the line `minicnn.torch.accelerate(model, images)`.

    python benchmarks/in_torch.py [--nets lenet5 ...] [--threads 2] [--no-compile]

Steps and whole epochs (DataLoader, loss, backward, step) of every net of torch_nets.py, timed in turn in
one process; peak memory, in a process for each side; how much the losses of 100 steps differ; and how far
the first step's gradients are from those in float64, since some nets make much of the least rounding.
benchmarks/results/in_torch.json keeps an entry for each net.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from paired import load, machine, save, time_in_turn
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_nets import NETS

PLAIN, LAST, COMPILED, OURS = "PyTorch", "PyTorch channels-last", "torch.compile", "minicnn.torch"
STEPS = 100
EPOCH = 8
"""How many batches an epoch has."""


def images(name: str, batches: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    net, generator = NETS[name], torch.Generator().manual_seed(0)
    n = net.batch * batches
    x = torch.randn(n, *net.shape, generator=generator)
    return x, torch.randint(0, 10, (n,), generator=generator)


def model(name: str, side: str, choose: str = "faster") -> nn.Module:
    """The net as this side trains it; all sides begin with the same weights."""
    torch.manual_seed(0)
    module = NETS[name].make()
    if side == LAST:
        return module.to(memory_format=torch.channels_last)
    if side == COMPILED:
        return torch.compile(module)
    if side == OURS:
        import minicnn.torch

        return minicnn.torch.accelerate(module, images(name)[0], choose=choose)
    return module


def script(
    name: str, side: str, choose: str = "faster"
) -> tuple[Callable[[torch.Tensor, torch.Tensor], float], nn.Module]:
    """One step, as it stands in anybody's script."""
    module = model(name, side, choose)
    optimizer = torch.optim.SGD(module.parameters(), NETS[name].lr, momentum=0.9)

    def step(x: torch.Tensor, y: torch.Tensor) -> float:
        if side == LAST:
            x = x.to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, module


def differences(name: str, sides: tuple[str, ...], steps: int = STEPS) -> dict[str, float]:
    """The largest difference of the losses from plain PyTorch's, relative to the first loss, by side."""
    batches = list(zip(*(part.split(NETS[name].batch) for part in images(name, 4)), strict=True))

    def losses(side: str) -> np.ndarray:
        step, _ = script(name, side)
        return np.array([step(*batches[i % len(batches)]) for i in range(steps)])

    plain = losses(PLAIN)
    return {side: float(np.abs(losses(side) - plain).max() / plain[0]) for side in sides}


def gradient_errors(name: str, sides: tuple[str, ...]) -> dict[str, float]:
    """How far the first gradients are from those in float64, all in one vector, relative to its length.

    Dropout is left out: its masks are not the same in another precision.
    """
    x, y = images(name)

    def gradient(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        module.apply(lambda part: part.eval() if isinstance(part, nn.Dropout) else None)
        F.cross_entropy(module(x), y).backward()
        return torch.cat([p.grad.flatten().double() for p in module.parameters() if p.grad is not None])

    exact = gradient(model(name, PLAIN).double(), x.double())
    errors = {side: gradient(model(name, side, "all"), x) - exact for side in sides}
    return {side: float(error.norm() / exact.norm()) for side, error in errors.items()}


def times(name: str, sides: list[str]) -> dict[str, Any]:
    """Milliseconds of a step and of an epoch on every side, and what was replaced."""
    import minicnn.torch

    scripts = {side: script(name, side) for side in sides}
    x, y = images(name)
    loader = DataLoader(TensorDataset(*images(name, EPOCH)), NETS[name].batch, shuffle=True)

    def epoch(step: Callable[[torch.Tensor, torch.Tensor], float]) -> Callable[[], object]:
        return lambda: [step(*batch) for batch in loader]

    rows = minicnn.torch.report(scripts[OURS][1]).rows
    return {
        "step, ms": time_in_turn({s: lambda f=f: f(x, y) for s, (f, _) in scripts.items()}),
        "epoch, ms": time_in_turn({s: epoch(f) for s, (f, _) in scripts.items()}, least_rounds=3),
        "operations replaced": sum(row.replaced for row in rows if row.mode == "training"),
        "operations left": sum(not row.replaced for row in rows if row.mode == "training"),
    }


def memory(name: str, side: str) -> float:
    """MB by which five steps raise the peak of a process of its own."""
    command = [sys.executable, __file__, "--memory", name, side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def grown(name: str, side: str) -> float:
    """MB by which five steps raise this process's memory at most, from what it has before the first one.

    Everything is replaced that can be: timing the example would leave memory behind.
    """
    step, _ = script(name, side, "all")
    x, y = images(name)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(5):
        step(x, y)
    return round(status("VmHWM") - before, 1)


def status(key: str) -> float:
    """One of the figures that Linux tells of this process's memory, in MB."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("NET", "SIDE"), help="of one side, in this process")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        print(json.dumps(grown(*args.memory)))
        return
    sides = [PLAIN, LAST, *([] if args.no_compile else [COMPILED]), OURS]
    for name in args.nets:
        entry = {"machine": machine(args.threads), **times(name, sides)}
        entry["losses differ by"] = differences(name, (LAST, OURS))
        entry["first gradients off by"] = gradient_errors(name, (PLAIN, LAST, OURS))
        entry["peak growth, MB"] = {side: memory(name, side) for side in (PLAIN, OURS)}
        print(name, json.dumps(entry), flush=True)
        save("in_torch", load("in_torch") | {f"{name}, {NETS[name].batch}": entry})


if __name__ == "__main__":
    main()
