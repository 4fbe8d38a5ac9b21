"""Captured training steps against launched ones: the same bits, and how long each takes.

    python scripts/gpu_capture.py OUT.json [--small]

A check that fails ends it with status 1, after all have run.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import Sequential, Trainer, models, optim
from minicnn.backends import get_backend
from minicnn.ema import WeightAverage
from minicnn.layers import Conv2d, Dense, Dropout, Flatten, MaxPool2d, ReLU

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from nets import vgg_like

SMALL = "--small" in sys.argv
STEPS, ROUNDS, REPEATS = (5, 1, 2) if SMALL else (8, 7, 40)
NETS = {"simple_cnn": (1, 28, 256), "resnet20": (3, 32, 128), "vgg_like": (3, 32, 128)}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd, momentum": lambda: optim.SGD(0.05, momentum=0.9, weight_decay=1e-4),
    "adamw": lambda: optim.AdamW(1e-3),
}


def model_of(name: str, precision: str) -> Sequential:
    """One of the nets, or a small one with dropout."""
    if name == "dropout":
        layers = (Conv2d(1, 8, 3, padding=1), ReLU(), Dropout(0.3), MaxPool2d(2), Flatten())
        return Sequential(
            *layers, Dense(8 * 14 * 14, 10), Dropout(0.1), backend="cuda", seed=1, precision=precision
        )
    if name == "vgg_like":
        model = vgg_like()
        model.bind("cuda", seed=1, precision=precision)
        return model
    channels, side, _ = NETS[name]
    return models.create(
        name, in_channels=channels, num_classes=10, image_size=side, backend="cuda", seed=1,
        precision=precision,
    )  # fmt: skip


def trainer_of(name: str, precision: str, optimizer: str, *, capture: bool) -> Trainer:
    """With everything that a step can have."""
    model = model_of(name, precision)
    return Trainer(
        model, OPTIMIZERS[optimizer](), schedule=lambda step: 0.05 / (1 + step), clip_norm=1.0,
        label_smoothing=0.1, average=WeightAverage(model, 0.99), capture=capture,
    )  # fmt: skip


def batches(name: str, count: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random images and labels."""
    channels, side, _ = NETS.get(name, (1, 28, 0))
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((size, channels, side, side), "float32"), rng.integers(0, 10, size))
        for _ in range(count)
    ]


def outcome(name: str, precision: str, optimizer: str, *, capture: bool) -> dict[str, bytes]:
    """The bits after some steps, the one before the last on a smaller batch."""
    trainer = trainer_of(name, precision, optimizer, capture=capture)
    pairs = batches(name, STEPS, 4 if SMALL else 64)
    pairs[-2] = pairs[-2][0][:3], pairs[-2][1][:3]
    for x, y in pairs:
        trainer.advance(x, y)
    if capture and (trainer._device_step is None or trainer._device_step.captured is None):
        raise RuntimeError("the step was not captured")
    assert trainer.average is not None
    arrays = trainer.model.state_dict() | trainer.optimizer.state_dict(trainer.model)
    found = {key: a.tobytes() for key, a in arrays.items()}
    for key, a in trainer.average.averages.items():
        found[f"average.{key}"] = trainer.backend.to_numpy(a).tobytes()
    totals = trainer.tally.read()
    return found | {
        "loss": np.float64(totals.loss).tobytes(),
        "correct": bytes(str(totals.correct), "ascii"),
    }


def check(name: str, precision: str, optimizer: str) -> dict[str, Any]:
    """Whether captured and launched steps agree, with the names of what differs, or the error."""
    row: dict[str, Any] = {"net": name, "precision": precision, "optimizer": optimizer}
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            captured = outcome(name, precision, optimizer, capture=True)
            launched = outcome(name, precision, optimizer, capture=False)
        row["differs"] = [key for key in captured if captured[key] != launched[key]][:5]
        row["told"] = [str(one.message) for one in told]
    except Exception:
        row["error"] = traceback.format_exc()
    return row


def step_times(name: str, precision: str) -> dict[str, Any]:
    """Milliseconds of a step on arrays of the device: both kinds in turn, the median of some rounds.

    "waited" is a launched step whose loss the host waits for, as `Trainer.step` does.
    """
    size = 4 if SMALL else NETS[name][2]
    backend = get_backend("cuda")
    x, y = (backend.asarray(a) for a in batches(name, 1, size)[0])
    trainers = {}
    for kind in ("captured", "launched", "waited"):
        model = model_of(name, precision)
        trainers[kind] = Trainer(model, optim.SGD(0.01, momentum=0.9), capture=kind == "captured")
        for _ in range(5):
            trainers[kind].step(x, y)
    times: dict[str, list[float]] = {kind: [] for kind in trainers}
    host: list[float] = []
    for _ in range(ROUNDS):
        for kind, trainer in trainers.items():
            backend.synchronize()
            start = time.perf_counter()
            for _ in range(REPEATS):
                if kind == "waited":
                    trainer.step(x, y)
                else:
                    trainer.advance(x, y)
            backend.synchronize()
            times[kind].append(1000 * (time.perf_counter() - start) / REPEATS)
        start = time.perf_counter()
        trainers["captured"].advance(x, y)
        trainers["captured"].advance(x, y)
        host.append(1000 * (time.perf_counter() - start) / 2)
    found = {kind: round(statistics.median(values), 4) for kind, values in times.items()}
    return {"net": name, "batch": size, "precision": precision, **found, "host": round(min(host), 4)}


def main() -> None:
    """Run all, and write what came of it."""
    out = Path(sys.argv[1])
    checks = [
        check(name, precision, optimizer)
        for name in ("dropout", "simple_cnn", "resnet20")
        for precision in ("float32", "tf32", "bfloat16")
        for optimizer in OPTIMIZERS
    ]
    times = []
    for name in NETS:
        for precision in ("float32", "tf32", "bfloat16"):
            try:
                times.append(step_times(name, precision))
            except Exception:
                times.append({"net": name, "precision": precision, "error": traceback.format_exc()})
            print(times[-1], flush=True)
            out.write_text(json.dumps({"checks": checks, "times": times}, indent=1))
    wrong = [row for row in checks if row.get("error") or row["differs"]]
    for row in wrong:
        print("WRONG:", row)
    print(f"{len(checks) - len(wrong)} of {len(checks)} checks hold")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
