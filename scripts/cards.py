"""Checks training by several processes on a machine with an NVIDIA card, as far as one card can show it.

NCCL wants a card for each process.  So its sums are compared with none at all by one process, and two
processes that share a card exchange gradients through the host's memory: all else is as on two cards.
Last, a run that torchrun starts must leave the files of a plain one.

    python scripts/cards.py [--backend cuda]

It prints a line for each check, and ends with exit status 1 if one fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from minicnn import Trainer, models, optim, set_num_threads  # noqa: E402
from minicnn.distributed import joining  # noqa: E402
from minicnn.distributed.torch_group import TorchGroup  # noqa: E402
from scripts import kill_resume, workers  # noqa: E402

STEPS, IMAGES, SHARDS = 3, 24, 4
WAYS: dict[str, dict[str, Any]] = {
    "ordered": {}, "synced": {"sync_batch_norm": True}, "fast": {"reduce": "fast"},
}  # fmt: skip
"""The trainer's arguments in each way of summing."""
RUN = [
    "--limit-train",
    "256",
    "--limit-test",
    "64",
    "--batch-size",
    "64",
    "--epochs",
    "1",
    "--threads",
    "1",
]


class ThroughTheHost(TorchGroup):
    """Processes that share a card: what they exchange goes through the host's memory."""

    def _adding(self, mine: torch.Tensor, room: torch.Tensor) -> Iterator[None]:  # noqa: ARG002
        here = mine.cpu()
        yield from super()._adding(here, torch.empty_like(here))
        mine.copy_(here)

    def _summing(self, mine: torch.Tensor) -> Iterator[None]:
        here = mine.cpu()
        yield from super()._summing(here)
        mine.copy_(here)

    def join(self, values: torch.Tensor, together: Callable[..., torch.Tensor]) -> torch.Tensor:
        card = values.device
        joined = super().join(values.cpu(), lambda *pair: together(*(a.to(card) for a in pair)).cpu())
        return joined.to(card)


def trained(backend: str, way: str) -> dict[str, np.ndarray]:
    """The weights of a small ResNet after some steps."""
    generator = np.random.default_rng(0)
    model = models.create("resnet20", in_channels=3, num_classes=4, image_size=16, backend=backend, seed=1)
    trainer = Trainer(model, optim.SGD(lr=0.05, momentum=0.9), shards=SHARDS, **WAYS[way])
    for _ in range(STEPS):
        x = generator.normal(size=(IMAGES, 3, 16, 16)).astype(np.float32)
        trainer.step(x, generator.integers(0, 4, IMAGES))
    return model.state_dict()


def train(backend: str, ways: list[str], kind: type[TorchGroup] | None, out: Path) -> None:
    """In a process: save the weights that each way gives, in a group of this kind or in none."""
    set_num_threads(1)
    if kind is None:
        for way in ways:
            np.savez(out / f"{way} alone.npz", **trained(backend, way))
        return
    with kind.joined(timeout=60, cards=kind is TorchGroup) as group:
        joining._current = group
        assert group.gather(group.tell("gloo")) == ["gloo"] * group.size
        for way in ways:
            np.savez(out / f"{way} {group.rank} of {group.size}.npz", **trained(backend, way))
        if kind is TorchGroup:
            (out / "libraries").write_text(dist.get_backend_config())


def differing(one: Path, other: Path, *, exact: bool) -> list[str]:
    """The names of the arrays that differ in two files."""
    a, b = np.load(one), np.load(other)

    def same(name: str) -> bool:
        return bool(
            np.array_equal(a[name], b[name]) if exact else np.allclose(a[name], b[name], 1e-2, 1e-4)
        )

    return [name for name in a.files if not same(name)]


def grouped(backend: str, out: Path) -> dict[str, list[str]]:
    """Train alone, by one process with NCCL, and by two that share a card; what differs."""
    log = out / "log"
    for size, ways, kind in (
        (1, list(WAYS), None), (1, ["fast", "ordered"], TorchGroup), (2, list(WAYS), ThroughTheHost),
    ):  # fmt: skip
        codes = workers.end(workers.start(size, log, train, backend, ways, kind, out))
        if any(codes):
            told = "".join(path.read_text() for path in sorted(log.iterdir()))
            return {f"{size} processes in {kind}": [f"exit statuses {codes}: {told}"]}
    library = (out / "libraries").read_text()
    found = {
        f"one process, {way}, through {library}: as alone": differing(
            out / f"{way} 0 of 1.npz", out / f"{way} alone.npz", exact=True
        )
        for way in ("fast", "ordered")
    }
    for way in WAYS:
        exact = way != "fast"
        found[f"two processes, {way}: {'the bits of' if exact else 'close to'} one"] = [
            name
            for rank in (0, 1)
            for name in differing(out / f"{way} {rank} of 2.npz", out / f"{way} alone.npz", exact=exact)
        ]
    return found


def started(backend: str, out: Path) -> list[str]:
    """Run train plainly, and by torchrun; what differs."""
    by_torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "--master-port",
                   str(workers.free_port())]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name, launcher in (("plain", []), ("torchrun", by_torchrun)):
        command = [sys.executable, *launcher, "-m", "minicnn.train", "--backend", backend, *RUN]
        done = subprocess.run(
            [*command, "--quiet", "--out", str(out / name)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            return [f"{name}: exit status {done.returncode}: {done.stderr}"]
    return kill_resume.differences(out / "torchrun", out / "plain")


def main() -> None:
    """Make all checks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpp", "numpy"))
    backend = parser.parse_args().backend
    with tempfile.TemporaryDirectory() as folder:
        checks = grouped(backend, Path(folder))
        checks["a run that torchrun starts: the files of a plain one"] = started(backend, Path(folder))
    for name, wrong in checks.items():
        print(f"{name}: {f'NO, {len(wrong)} differ: {wrong[0]}' if wrong else 'yes'}", flush=True)
    sys.exit(any(checks.values()))


if __name__ == "__main__":
    main()
