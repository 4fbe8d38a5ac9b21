"""What scripts/gpu.py times: operations, training steps and inference, of the cuda backend and of torch.

A row is a dict with what, phase, tf32, error (the largest difference from torch, as a share of the largest
value), and the milliseconds of "minicnn" and of each peer.  Each row is passed to ``keep`` as soon as it is
complete, so that nothing is lost when a section is stopped.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from minicnn import Sequential, Trainer, models, optim
from minicnn.backends import Conv, Pool, cuda_build, get_backend
from minicnn.backends.cuda_backend import allow_tf32
from minicnn.graph import run
from minicnn.torch_reference import to_torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from nets import vgg_like

Row = dict[str, Any]
Keep = Callable[[Row], None]
Work = Callable[[], Any]

EMULATED = cuda_build.emulated()  # if so, shapes and rounds are small, and the numbers mean nothing
DEVICE = "cpu" if EMULATED else "cuda"
WARM_UP, ROUNDS = (1, 1) if EMULATED else (5, 20)
FLUSHED_BYTES = 256 * 1024 * 1024  # more than any card's second-level cache

MODELS = {  # C, H, batch
    "lenet5": (1, 28, 256),
    "simple_cnn": (1, 28, 256),
    "vgg_like": (3, 32, 128),
    "resnet20": (3, 32, 128),
}
CONVOLUTIONS = {  # N, C, H, F, kernel, stride
    "conv 3x3, 3 to 64, 32x32": (256, 3, 32, 64, 3, 1),
    "conv 5x5, 6 to 16, 14x14": (256, 6, 14, 16, 5, 1),
    "conv 3x3, 64 to 64, 32x32": (128, 64, 32, 64, 3, 1),
    "conv 3x3, 128 to 128, 16x16": (128, 128, 16, 128, 3, 1),
    "conv 3x3, 256 to 256, 8x8": (128, 256, 8, 256, 3, 1),
    "conv 3x3, 64 to 128, stride 2": (128, 64, 32, 128, 3, 2),
    "conv 1x1, 256 to 64, 16x16": (128, 256, 16, 64, 1, 1),
}
POOL = Pool(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil_mode=False)


# ---- timing ----------------------------------------------------------------------------------------


def milliseconds(work: Work) -> float:
    """The median of ROUNDS runs, timed by CUDA events; before each the second-level cache is emptied."""
    for _ in range(WARM_UP):
        work()
    if EMULATED:
        start = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - start)
    flush = torch.empty(FLUSHED_BYTES // 4, device=DEVICE)
    times = []
    for _ in range(ROUNDS):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def set_tf32(on: bool) -> None:
    """Allow or forbid TF32 on both sides."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on
    allow_tf32(get_backend("cuda"), on)


def error(got: Any, expected: Any) -> float:
    """The largest difference, as a share of the largest value."""
    with torch.no_grad():
        return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


# ---- operations ------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """One operation to time.  Both sides return an array, or a tuple of arrays, which are compared."""

    what: str
    phase: str
    ours: Work
    theirs: Work


def operations(keep: Keep) -> None:
    """Single operations, forward and backward; torch gets channels-last arrays too."""
    torch.backends.cudnn.benchmark = True
    for tf32 in (False, True):
        set_tf32(tf32)
        for name, shape in CONVOLUTIONS.items():
            for operation in convolution(name, *shape):
                keep(timed(operation, tf32))
    set_tf32(False)
    for operation in memory_bound():
        keep(timed(operation, False))
    for operation in dense_and_loss():
        keep(timed(operation, False))


def timed(operation: Operation, tf32: bool) -> Row:
    """The row of an operation.  The results are compared outside the timing."""
    got, expected = operation.ours(), operation.theirs()
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    return {
        "what": operation.what, "phase": operation.phase, "tf32": tf32,
        "error": max(error(*p) for p in pairs),
        "minicnn": milliseconds(operation.ours), "torch": milliseconds(operation.theirs),
    }  # fmt: skip


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    """Random arrays on the device, in the backend's own memory order."""
    backend, rng = get_backend("cuda"), np.random.default_rng(0)
    return [backend.asarray(rng.standard_normal(shape).astype("float32")) for shape in shapes]


def small(size: int, least: int) -> int:
    """The size, but at most ``least`` on the emulation, which is slow."""
    return min(size, least) if EMULATED else size


def convolution(
    name: str, n: int, c: int, size: int, f: int, kernel: int, stride: int
) -> Iterator[Operation]:
    """A convolution, and if its stride is 1 also the fused one with ReLU and max-pool."""
    backend = get_backend("cuda")
    n, c, size, f = small(n, 1), small(c, 4), small(size, 6), small(f, 4)
    x, weight, bias = arrays((n, c, size, size), (f, c, kernel, kernel), (f,))
    conv = Conv((stride, stride), (kernel // 2, kernel // 2), (1, 1), 1)
    y = backend.conv2d_forward(x, weight, bias, **conv._asdict())
    peer = partial(F.conv2d, x, weight, bias, *conv[:3])
    yield Operation(
        name, "forward", partial(backend.conv2d_forward, x, weight, bias, **conv._asdict()), peer
    )
    yield Operation(
        name, "backward",
        partial(backend.conv2d_backward, y, x, weight, **conv._asdict()),
        partial(torch.ops.aten.convolution_backward, y, x, weight, [f], *map(list, conv[:3]),
                False, [0, 0], 1, [True] * 3),
    )  # fmt: skip
    if stride == 1:
        yield Operation(
            f"{name}, ReLU, pool", "forward",
            lambda: backend.conv2d_relu_max_pool2d_forward(x, weight, bias, conv=conv, pool=POOL)[0],
            lambda: F.max_pool2d(F.relu(peer()), 2),
        )  # fmt: skip


def memory_bound() -> Iterator[Operation]:
    """Operations whose speed memory limits: pooling, batch norm, ReLU, a sum."""
    backend = get_backend("cuda")
    n, c, size = small(128, 2), small(64, 4), small(32, 4)
    x, dy, pooled = arrays((n, c, size, size), (n, c, size, size), (n, c, size // 2, size // 2))
    weight, bias, mean, var = arrays((c,), (c,), (c,), (c,))
    var = var.abs() + 1
    pool = POOL._asdict()
    _, winner = backend.max_pool2d_forward(x, **pool)
    _, indices = F.max_pool2d(x, 2, return_indices=True)
    yield Operation(
        "max-pool 2x2", "forward",
        lambda: backend.max_pool2d_forward(x, **pool)[0], lambda: F.max_pool2d(x, 2),
    )  # fmt: skip
    yield Operation(
        "max-pool 2x2", "backward",
        lambda: backend.max_pool2d_backward(pooled, winner, input_shape=tuple(x.shape), **pool),
        lambda: torch.ops.aten.max_pool2d_with_indices_backward(
            pooled, x, [2, 2], [2, 2], [0, 0], [1, 1], False, indices),
    )  # fmt: skip
    yield Operation(
        "batch norm and ReLU", "forward",
        lambda: backend.batch_norm2d_relu_forward(
            x, weight, bias, mean, var, training=True, momentum=0.1, eps=1e-5)[0],
        lambda: F.relu(F.batch_norm(x, None, None, weight, bias, True)),
    )  # fmt: skip
    yield Operation("ReLU", "forward", lambda: backend.relu_forward(x), lambda: F.relu(x))
    yield Operation("add", "forward", lambda: backend.add_forward(x, dy), lambda: x + dy)


def dense_and_loss() -> Iterator[Operation]:
    backend = get_backend("cuda")
    n, inputs, outputs = small(256, 4), small(3136, 8), small(128, 5)
    x, weight, bias, dy = arrays((n, inputs), (outputs, inputs), (outputs,), (n, outputs))
    labels = backend.asarray(np.arange(n) % outputs)
    yield Operation(
        "dense 3136 to 128", "forward",
        lambda: backend.dense_forward(x, weight, bias), lambda: F.linear(x, weight, bias),
    )  # fmt: skip
    yield Operation(
        "dense 3136 to 128", "backward",
        lambda: backend.dense_backward(dy, x, weight), lambda: (dy @ weight, dy.T @ x, dy.sum(0)),
    )  # fmt: skip
    yield Operation(
        "softmax cross-entropy", "forward",
        lambda: backend.softmax_cross_entropy_forward(dy, labels)[0], lambda: F.cross_entropy(dy, labels),
    )  # fmt: skip


# ---- whole networks --------------------------------------------------------------------------------


class Net(NamedTuple):
    """A network on the device, the same network in torch, and a batch."""

    name: str
    model: Sequential
    module: torch.nn.Module
    x: Any
    y: Any


def net(name: str) -> Net:
    channels, size, batch = MODELS[name]
    batch = small(batch, 2)
    if name == "vgg_like":
        model = vgg_like()
        model.bind("cuda")
    else:
        model = models.create(name, in_channels=channels, num_classes=10, image_size=size, backend="cuda")
    (x,) = arrays((batch, channels, size, size))
    return Net(name, model, to_torch(model).to(DEVICE), x, model.backend.asarray(np.arange(batch) % 10))


def steps(keep: Keep, names: tuple[str, ...] = tuple(MODELS)) -> None:
    """Training steps and inference against eager torch in both memory orders."""
    torch.backends.cudnn.benchmark = True
    set_tf32(False)
    for name in names:
        network = net(name)
        expected = network.module.eval()(network.x)
        peers = {
            "torch": (network.module, network.x.contiguous()),
            "torch channels-last": (
                to_torch(network.model).to(DEVICE).to(memory_format=torch.channels_last),
                network.x.contiguous(memory_format=torch.channels_last),
            ),
        }
        logits = network.model.predict(network.model.backend.to_numpy(network.x))
        wrong = error(torch.from_numpy(logits).to(DEVICE), expected)
        trainer = Trainer(network.model, optim.SGD(lr=1e-4, momentum=0.9))
        graph, backend = trainer.graph, trainer.backend
        for tf32 in (False, True):
            set_tf32(tf32)
            ours = {"step": partial(trainer.step, network.x, network.y),
                    "inference": partial(run.forward, graph, backend, network.x, False)}  # fmt: skip
            for phase, work in ours.items():
                row: Row = {"what": f"{name}, batch {len(network.y)}", "phase": phase, "tf32": tf32,
                            "error": wrong, "minicnn": milliseconds(work)}  # fmt: skip
                for peer, (module, x) in peers.items():
                    row[peer] = torch_milliseconds(module, x, network.y, phase)
                keep(row)
        set_tf32(False)


def compiled(keep: Keep) -> None:
    """The same against torch.compile, which takes up to a minute for each network to compile."""
    for name in MODELS:
        network = net(name)
        x = network.x.contiguous(memory_format=torch.channels_last)
        module = torch.compile(network.module.to(memory_format=torch.channels_last))
        for tf32 in (False, True):
            set_tf32(tf32)
            for phase in ("step", "inference"):
                what = f"{name}, batch {len(network.y)}"
                time_taken = torch_milliseconds(module, x, network.y, phase)
                keep({"what": what, "phase": phase, "tf32": tf32, "torch.compile": time_taken})
        set_tf32(False)


def torch_milliseconds(module: Any, x: Any, y: Any, phase: str) -> float:
    """Time a training step that returns its loss to the host, as minicnn's does, or inference."""
    if phase == "inference":
        module.eval()
        with torch.inference_mode():
            return milliseconds(lambda: module(x))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, fused=True)
    module.train()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return milliseconds(step)


SECTIONS = {"operations": operations, "steps": steps, "compiled": compiled}
