"""How much time it saves to fold batch norms into convolutions: inference of resnet20, 128 images of 32×32.

    python benchmarks/fold.py [--threads 2] [--seconds 3]

These take turns, after a check that their results agree: minicnn with batch norms folded, minicnn with
batch norms as operations of their own, and PyTorch eager, channels-last and through torch.compile.
Writes benchmarks/results/fold.json.
"""

from __future__ import annotations

import argparse

import numpy as np
from paired import machine, save, time_in_turn
from peers import PEERS
from rows import Call, torch_inference, use_threads

from minicnn import Sequential, models
from minicnn.graph import run
from minicnn.layers import BatchNorm2d

BATCH, SIZE = 128, 32


def trained_like(seed: int) -> Sequential:
    """A resnet20 whose batch norms differ in statistics, scales and shifts, as after training."""
    model = models.create("resnet20", in_channels=3, num_classes=10, image_size=SIZE, backend="cpp")
    rng = np.random.default_rng(seed)
    state = model.state_dict()
    for name, layer in model.named_layers():
        if isinstance(layer, BatchNorm2d):
            for key in ("weight", "running_var"):
                state[f"{name}.{key}"] = rng.uniform(0.5, 1.5, layer.num_features)
            for key in ("bias", "running_mean"):
                state[f"{name}.{key}"] = rng.normal(0, 0.1, layer.num_features)
    model.load_state_dict(state)
    return model


def sides(model: Sequential, x: np.ndarray) -> dict[str, Call]:
    backend, not_folded = model.backend, model.graph(training=True)
    calls: dict[str, Call] = {
        "folded": lambda: model.predict(x),
        "not folded": lambda: backend.to_numpy(
            run.forward(not_folded, backend, backend.asarray(x), False)[0]
        ),
    }
    calls |= {row: torch_inference(row, model, x) for row in PEERS}
    expected = calls["not folded"]()
    for call in calls.values():
        np.testing.assert_allclose(call(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time of each side")
    args = parser.parse_args()
    use_threads(args.threads)
    x = np.random.default_rng(0).random((BATCH, 3, SIZE, SIZE), np.float32)
    times = time_in_turn(sides(trained_like(0), x), seconds=args.seconds)
    best = min(PEERS, key=times.__getitem__)
    result = {
        "machine": machine(args.threads),
        "net": f"resnet20, batch {BATCH}, {SIZE}x{SIZE}",
        "milliseconds": {name: round(t, 2) for name, t in times.items()},
        "not folded / folded": round(times["not folded"] / times["folded"], 2),
        "best torch": best,
        "best torch / folded": round(times[best] / times["folded"], 2),
    }
    print(result)
    save("fold", result)


if __name__ == "__main__":
    main()
