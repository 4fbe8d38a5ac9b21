"""A training step of the NumPy backend, compared with PyTorch eager and a NumPy CNN as usually written.

python benchmarks/numpy_steps.py        writes benchmarks/results/numpy_steps.json
"""

from __future__ import annotations

from collections.abc import Callable

from index_im2col import UsualNet
from nets import NETS, batch, build
from paired import machine, save, time_in_turn
from rows import MOMENTUM, check_losses, training_step, use_threads

BATCH, THREADS = 128, 2


def steps(name: str) -> dict[str, Callable[[], float]]:
    """The three training steps, on the same batch and from the same weights."""
    x, y = batch(name, BATCH)
    usual = UsualNet(build(name, "numpy").state_dict(), name)
    return {
        **{row: training_step(row, name, BATCH) for row in ("minicnn numpy", "torch eager")},
        "usual numpy": lambda: usual.step(x, y, NETS[name].lr, MOMENTUM),
    }


def main() -> None:
    use_threads(THREADS)
    result = {"machine": machine(THREADS), "what": f"training step, batch {BATCH}, 28x28, SGD", "nets": {}}
    for name in ("lenet5", "simple_cnn"):
        calls = steps(name)
        check_losses(calls)
        times = time_in_turn(calls, seconds=4.0)
        ours = times.pop("minicnn numpy")
        result["nets"][name] = {
            "milliseconds": {"minicnn numpy": round(ours, 2), **{k: round(t, 2) for k, t in times.items()}},
            "ratios": {f"{row} / minicnn": round(t / ours, 2) for row, t in times.items()},
        }
        print(name, result["nets"][name])
    save("numpy_steps", result)


if __name__ == "__main__":
    main()
