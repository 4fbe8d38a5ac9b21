"""How much time fused operations save in a training step, and the most that two further ones could save.

    python benchmarks/fusion.py        writes benchmarks/results/fusion.json

Several versions of a net's step take turns in one process.  The first is the step as it is.  In each of the
next ones, one fused operation is replaced by its composition, the separate operations that it combines; in
one more, all of them are replaced.  The last two show the most that two fusions could save which are not
built.  One leaves out the sums of batch norm, as if the convolution before it had computed them for free.
The other leaves out batch norm's whole forward pass, as if the next convolution also normalised the values
that it loads.  The results of these two are wrong, and only their time is used.
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
SECONDS = 6.0  # of measuring, for each side


def composed(*ops: str) -> CppBackend:
    """The cpp backend, but these fused operations are computed by their primitives."""
    backend = CppBackend()
    if "conv2d_relu_max_pool2d" in ops:
        ops += ("conv2d_max_pool2d",)  # its composition uses this one
    for op in ops:
        for name in (f"{op}_forward", f"{op}_backward"):
            setattr(backend, name, getattr(Backend, name).__get__(backend))
    return backend


def without_sums() -> CppBackend:
    """The cpp backend, but batch norms compute no sums: they use the running statistics."""
    backend = CppBackend()

    def with_running_statistics(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays, **options: forward(*arrays, **options | {"training": False})

    for op in NORMS:
        setattr(backend, f"{op}_forward", with_running_statistics(getattr(backend, f"{op}_forward")))
    return backend


def without_norms() -> CppBackend:
    """The cpp backend, but in every step batch norms return what they returned in the first."""
    backend = CppBackend()

    def from_first_step(forward: Callable[..., Any]) -> Callable[..., Any]:
        returned: dict[int, Any] = {}

        def run(x: Any, *arrays: Any, **options: Any) -> Any:
            key = id(arrays[-1])  # the running variance, which no two batch norms share
            if key not in returned:
                returned[key] = forward(x, *arrays, **options)
            return returned[key]

        return run

    for op in NORMS:
        setattr(backend, f"{op}_forward", from_first_step(getattr(backend, f"{op}_forward")))
    return backend


def build(name: str, backend: Backend) -> Sequential:
    _, channels, height, width = IMAGES[name]
    return models.create(
        name, in_channels=channels, num_classes=10, image_size=(height, width), backend=backend
    )


def steps(name: str) -> dict[str, Callable[[], float]]:
    """The training step with each backend; the keys say what is different in it."""
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
