"""What fused operations save of a training step, and what two more could at most, in turn in one process.

    python benchmarks/fusion.py        writes benchmarks/results/fusion.json

The step of a net as it is; with one fused operation after the other replaced by its composition, the
operations that it stands for; with all of them replaced.  Then two that bound what is not built: the sums
of batch norm for nothing, as if the convolution before had gathered them, and batch norm's whole forward
pass for nothing, as if the next convolution normalised what it loads, too.  These two compute something
else; only their time counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from paired import machine, save, time_in_turn
from rows import MOMENTUM, THREADS, use_threads

from minicnn import Backend, Sequential, Trainer, models, optim
from minicnn.backends.cpp_backend import CppBackend

OPS = (
    "conv2d_relu_max_pool2d", "conv2d_max_pool2d", "batch_norm2d_relu", "batch_norm2d_add_relu",
    "batch_norm2d_relu_max_pool2d",
)  # fmt: skip
NORMS = ("batch_norm2d", *(op for op in OPS if op.startswith("batch_norm2d")))
IMAGES = {
    "simple_cnn": (128, 1, 28, 28), "fast_resnet": (128, 1, 28, 28), "resnet20": (128, 3, 32, 32),
    "resnet18": (32, 3, 64, 64),
}  # fmt: skip
SECONDS = 6.0  # of measuring each side


def composed(*ops: str) -> CppBackend:
    """The cpp backend, which computes these operations as the primitives that they stand for."""
    backend = CppBackend()
    if "conv2d_relu_max_pool2d" in ops:
        ops += ("conv2d_max_pool2d",)  # of which it is composed
    for op in ops:
        for name in (f"{op}_forward", f"{op}_backward"):
            setattr(backend, name, getattr(Backend, name).__get__(backend))
    return backend


def without_sums() -> CppBackend:
    """The cpp backend, whose batch norms do not sum: they take the running statistics."""
    backend = CppBackend()

    def never_sums(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays, **options: forward(*arrays, **options | {"training": False})

    for op in NORMS:
        setattr(backend, f"{op}_forward", never_sums(getattr(backend, f"{op}_forward")))
    return backend


def without_norms() -> CppBackend:
    """The cpp backend, whose batch norms give in every step what they gave in the first."""
    backend = CppBackend()

    def remembers(forward: Callable[..., Any]) -> Callable[..., Any]:
        given: dict[int, Any] = {}

        def run(x: Any, *arrays: Any, **options: Any) -> Any:
            key = id(arrays[-1])  # the running variance, which no two batch norms share
            if key not in given:
                given[key] = forward(x, *arrays, **options)
            return given[key]

        return run

    for op in NORMS:
        setattr(backend, f"{op}_forward", remembers(getattr(backend, f"{op}_forward")))
    return backend


def build(name: str, backend: Backend) -> Sequential:
    _, channels, height, width = IMAGES[name]
    return models.create(
        name, in_channels=channels, num_classes=10, image_size=(height, width), backend=backend
    )


def steps(name: str) -> dict[str, Callable[[], float]]:
    """The step with each backend, by what is different in it."""
    ops = {node.op for node in build(name, CppBackend()).graph(training=True)}
    used = [op for op in OPS if op in ops]
    backends = {"as it is": CppBackend()}
    backends |= {f"{op} composed": composed(op) for op in used}
    if len(used) > 1:
        backends["all of these composed"] = composed(*used)
    if any(op in NORMS for op in used):
        backends |= {"batch norm's sums for nothing": without_sums(),
                     "batch norm's forward for nothing": without_norms()}  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = rng.random(IMAGES[name], np.float32), rng.integers(0, 10, IMAGES[name][0])

    def step_of(backend: Backend) -> Callable[[], float]:
        trainer = Trainer(build(name, backend), optim.SGD(1e-5, MOMENTUM))
        return lambda: trainer.step(x, y)

    calls = {what: step_of(backend) for what, backend in backends.items()}
    losses = {what: call() for what, call in calls.items() if not what.endswith("nothing")}
    np.testing.assert_allclose(list(losses.values()), losses["as it is"], rtol=1e-5)
    return calls


def main() -> None:
    use_threads(THREADS)
    found = {}
    for name, shape in IMAGES.items():
        net = f"{name}, batch {shape[0]}"
        times = time_in_turn(steps(name), seconds=SECONDS)
        found[net] = {what: round(t, 2) for what, t in times.items()}
        print(net, found[net], flush=True)
    save("fusion", {"machine": machine(THREADS), "training step, ms": found})


if __name__ == "__main__":
    main()
