"""The sections "steps" and "compiled" of scripts/gpu.py: whole nets, ours and in every way to run torch.

What is timed, all from arrays that are on the device already:

step       a training step whose loss the host reads before it begins the next
run        the same step among many, where nobody waits
inference  a forward pass in evaluation among many, where nobody waits
memory     not a time but megabytes: the most that a side had allocated, its own weights included

Training is SGD with momentum.  torch's bfloat16 is autocast in training; for inference its module is
bfloat16 as a whole, which is faster.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from nets import vgg_like
from torch import nn
from torch.nn import functional as F

from minicnn import Sequential, Trainer, models, optim
from minicnn.backends import get_backend
from minicnn.graph import run
from minicnn.layers import Dropout
from minicnn.torch_reference import to_torch
from scripts.gpu_report import OURS
from scripts.gpu_timings import (
    DEVICE,
    EMULATED,
    PRECISIONS,
    Keep,
    Work,
    allow_tf32,
    error,
    in_a_row,
    small,
    synchronize,
    waited,
)

LR, MOMENTUM = 1e-3, 0.9
STEPS_COMPARED = 3


class Net(NamedTuple):
    """The shape of an image (C,H,W), and the batch size."""

    shape: tuple[int, int, int]
    batch: int


NETS = {
    "lenet5": Net((1, 28, 28), 256),
    "simple_cnn": Net((1, 28, 28), 256),
    "fast_cnn": Net((1, 28, 28), 256),
    "resnet20": Net((3, 32, 32), 128),
    "vgg_like": Net((3, 32, 32), 128),
    "resnet18": Net((3, 224, 224), 64),
    "resnet50": Net((3, 224, 224), 32),
}


class Way(NamedTuple):
    """A way to run torch."""

    order: torch.memory_format = torch.contiguous_format
    captured: bool = False
    """The whole step is captured as a CUDA graph."""
    compiled: bool = False
    """The module is compiled by torch.compile(mode="reduce-overhead")."""


EAGER_WAYS = {
    "torch": Way(),
    "channels-last": Way(torch.channels_last),
    "captured": Way(captured=True),
    "captured channels-last": Way(torch.channels_last, captured=True),
}
COMPILED = "compiled"


class Subject(NamedTuple):
    """A net of ours on the device, what it is called in rows, and a batch."""

    name: str
    model: Sequential
    x: Any
    y: Any

    def module(self) -> nn.Module:
        """The same net, with the weights that ours has now."""
        return to_torch(self.model).to(DEVICE)

    def megabytes(self) -> float:
        """What the weights and running statistics of our net take."""
        arrays = [*self.model.named_parameters().values(), *self.model.named_buffers().values()]
        return sum(array.nbytes for array in arrays) / 1e6


def subject(name: str, batch: int | None = None) -> Subject:
    """A net and a batch of random images, of the size in NETS unless another is given."""
    net = NETS[name]
    n = small(net.batch if batch is None else batch, 2)
    channels, *size = net.shape
    if name == "vgg_like":
        model = vgg_like()
        model.bind("cuda")
    else:
        model = models.create(
            name, in_channels=channels, num_classes=10, image_size=(size[0], size[1]), backend="cuda"
        )
    for _, layer in model.named_layers():
        if isinstance(layer, Dropout):
            layer.p = 0.0  # torch would draw other masks
    backend, rng = get_backend("cuda"), np.random.default_rng(0)
    x = backend.asarray(rng.standard_normal((n, *net.shape)).astype("float32"))
    return Subject(f"{name}, batch {n}", model, x, backend.asarray(np.arange(n) % 10))


# ---- sides -----------------------------------------------------------------------------------------


def our_trainer(subject: Subject, precision: str) -> Trainer:
    subject.model.set_precision(precision)
    return Trainer(subject.model, optim.SGD(lr=LR, momentum=MOMENTUM))


def our_step(subject: Subject, precision: str) -> Work:
    """A call that makes one training step and returns its loss."""
    return partial(our_trainer(subject, precision).step, subject.x, subject.y)


def our_run(subject: Subject, precision: str) -> Work:
    """A call that makes one training step and waits for nothing."""
    return partial(our_trainer(subject, precision).advance, subject.x, subject.y)


def our_inference(subject: Subject, precision: str) -> Work:
    """A call that gives the logits of the batch."""
    subject.model.set_precision(precision)
    graph = subject.model.graph(training=False)
    return lambda: run.forward(graph, subject.model.backend, subject.x, False)[0]


def torch_step(subject: Subject, precision: str, way: Way) -> Work:
    """A call that makes one training step of torch and gives its loss, still on the device."""
    torch.backends.cudnn.benchmark = True
    allow_tf32(precision == "tf32")
    module = subject.module().to(memory_format=way.order).train()
    x = subject.x.contiguous(memory_format=way.order)
    optimizer = torch.optim.SGD(module.parameters(), LR, MOMENTUM, fused=True)
    forward = torch.compile(module, mode="reduce-overhead") if way.compiled else module
    casts = torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bfloat16")

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with casts:
            loss = F.cross_entropy(forward(x), subject.y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return captured(step) if way.captured else step


def torch_inference(subject: Subject, precision: str, way: Way) -> Work:
    """A call that gives the logits of the batch, computed by torch."""
    torch.backends.cudnn.benchmark = True
    allow_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    module = subject.module().to(dtype).to(memory_format=way.order).eval()
    x = subject.x.to(dtype).contiguous(memory_format=way.order)
    forward = torch.compile(module, mode="reduce-overhead") if way.compiled else module

    @torch.no_grad()
    def logits() -> torch.Tensor:
        return forward(x)

    return captured(logits) if way.captured else logits


class Side(NamedTuple):
    """What makes the work of each phase."""

    step: Callable[[], Work]
    run: Callable[[], Work]
    inference: Callable[[], Work]


def our_side(net: Subject, precision: str) -> Side:
    return Side(*(partial(make, net, precision) for make in (our_step, our_run, our_inference)))


def torch_side(net: Subject, precision: str, way: Way) -> Side:
    """One step serves both phases of training, since it leaves its loss on the device."""
    step = cache(partial(torch_step, net, precision, way))
    return Side(step, step, partial(torch_inference, net, precision, way))


def captured(work: Work) -> Work:
    """The work as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


# ---- sections --------------------------------------------------------------------------------------


def steps(keep: Keep, name: str, precisions: list[str], alone: Any = nullcontext) -> None:
    """One net, in each precision: ours, and torch's ways that compile nothing."""
    net = subject(name)
    state = net.model.state_dict()
    synchronize()
    with alone():
        for precision in precisions:
            sides = {OURS: partial(our_side, net, precision)}
            for peer, way in EAGER_WAYS.items():
                if not (EMULATED and way.captured):
                    sides[peer] = partial(torch_side, net, precision, way)
            for side, make in sides.items():
                net.model.load_state_dict(state)
                measure(keep, net, precision, side, make())
            net.model.load_state_dict(state)
            attempt(keep, net.name, precision, "error", partial(keep_errors, keep, net, precision))


def compiled(keep: Keep, name: str, precision: str, alone: Any = nullcontext) -> None:
    """One net in one precision, by torch.compile.  Preparing means to compile, and to run a few times."""
    net = subject(name)
    way = Way(torch.channels_last, compiled=True)
    with peak() as megabytes:
        step = prepared(torch_step(net, precision, way))
        memory = megabytes()
    inference = prepared(torch_inference(net, precision, way))
    with alone():
        figures = {
            "step": waited(step), "run": in_a_row(step), "inference": in_a_row(inference), "memory": memory
        }  # fmt: skip
        for phase, value in figures.items():
            keep({"what": net.name, "phase": phase, "precision": precision, COMPILED: value})


def prepared(work: Work) -> Work:
    """The work, after some calls: it compiles in the first ones, and captures its graphs."""
    for _ in range(4):
        work()
    synchronize()
    return work


def measure(keep: Keep, net: Subject, precision: str, name: str, side: Side) -> None:
    """Keep a row for each phase of one side, or a note of what kept it from being measured."""

    def row(phase: str, value: float) -> None:
        keep({"what": net.name, "phase": phase, "precision": precision, name: value})

    def training() -> None:
        with peak() as megabytes:
            row("step", waited(side.step()))
            row("run", in_a_row(side.run()))
            row("memory", megabytes() + (net.megabytes() if name == OURS else 0))

    attempt(keep, net.name, precision, name, training)
    attempt(keep, net.name, precision, name, lambda: row("inference", in_a_row(side.inference())))


def attempt(keep: Keep, what: str, precision: str, side: str, work: Callable[[], None]) -> None:
    """Do the work; if it fails, keep a note of the reason and go on."""
    try:
        work()
    except Exception as error:  # whatever a peer or a driver throws: the other sides are still measured
        reason = (str(error).splitlines() or [""])[0]
        keep({"note": f"{what}, {precision}, {side}: {type(error).__name__}: {reason}"})
    gc.collect()
    if not EMULATED:
        torch.cuda.empty_cache()


@contextmanager
def peak() -> Iterator[Callable[[], float]]:
    """A function that tells the most megabytes that were allocated beyond those at the beginning."""
    if EMULATED:
        yield lambda: 0.0
        return
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    yield lambda: (torch.cuda.max_memory_allocated() - before) / 1e6


def keep_errors(keep: Keep, net: Subject, precision: str) -> None:
    """How far our losses and logits are from those of torch in float32."""
    ours, theirs = our_step(net, precision), torch_step(net, "float32", Way())
    losses = [(float(ours()), float(theirs())) for _ in range(STEPS_COMPARED)]
    wrong = {
        "step": max(abs(a / b - 1) for a, b in losses),
        "inference": error(
            our_inference(net, precision)(), torch_inference(net, "float32", Way())()
        ),
    }  # fmt: skip
    for phase, value in wrong.items():
        keep({"what": net.name, "phase": phase, "precision": precision, "error": value})


def small_steps() -> Iterator[str]:
    """One step of small batches of several nets in each precision, for compute-sanitizer to watch."""
    for name in ("simple_cnn", "fast_cnn", "resnet20", "vgg_like"):
        for precision in PRECISIONS:
            net = subject(name, 4)
            loss = float(our_step(net, precision)())
            our_inference(net, precision)()
            synchronize()
            yield f"{net.name}, {precision}: loss {loss:.4f}"
