"""Shapes that nobody tuned for: random convolutions, pools, dense layers and nets, cpp against PyTorch.

    python benchmarks/untuned.py [--ops 40] [--grouped 20] [--nets 6] [--seed 0]

Each takes turns with PyTorch eager and channels-last.  The ratio is the better time of these two divided by
minicnn's.  Operations with a ratio below 0.8 and training steps with one below 1.0 are listed as losses.
Writes benchmarks/results/untuned.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nets import torch_step
from paired import machine, save, time_in_turn

import minicnn
from minicnn import Sequential, Trainer, optim
from minicnn.backends import Conv, Pool
from minicnn.layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU
from minicnn.torch_reference import to_torch

Sides = dict[str, Callable[[], Any]]
FORMATS = {"torch eager": torch.contiguous_format, "torch channels-last": torch.channels_last}


def conv_problem(rng: np.random.Generator) -> tuple[str, tuple[np.ndarray, ...], Conv]:
    """A convolution of 10 to 500 million multiply-adds."""
    while True:
        n, c, f = (int(rng.integers(1, top)) for top in (65, 97, 129))
        size, kernel = int(rng.integers(7, 65)), int(rng.choice([1, 2, 3, 3, 3, 5, 5, 7]))
        stride = int(rng.choice([1, 1, 1, 2]))
        padding = int(rng.integers(0, kernel // 2 + 1))
        out = (size + 2 * padding - kernel) // stride + 1
        if out > 0 and 1e7 < n * c * f * out * out * kernel * kernel < 5e8:
            break
    return square_conv(rng, n, c, f, size, kernel, stride, padding)


def grouped_problem(rng: np.random.Generator) -> tuple[str, tuple[np.ndarray, ...], Conv]:
    """A depthwise convolution or one with few groups, half of each; 1 to 200 million multiply-adds."""
    while True:
        n, size, kernel = int(rng.integers(1, 65)), int(rng.integers(7, 65)), int(rng.choice([3, 3, 5]))
        stride = int(rng.choice([1, 1, 2]))
        if rng.random() < 0.5:  # depthwise; sometimes with two filters for each channel
            groups = int(rng.integers(8, 257))
            c, f = groups, groups * int(rng.choice([1, 1, 1, 2]))
        else:
            groups = int(rng.choice([2, 3, 4, 8, 16, 32]))
            c, f = (groups * int(rng.integers(2, 25)) for _ in range(2))
        out = (size + 2 * (kernel // 2) - kernel) // stride + 1
        if 1e6 < n * c // groups * f * out * out * kernel * kernel < 2e8:
            break
    return square_conv(rng, n, c, f, size, kernel, stride, kernel // 2, groups)


def square_conv(
    rng: np.random.Generator, n: int, c: int, f: int, size: int, kernel: int, stride: int, padding: int,
    groups: int = 1,
) -> tuple[str, tuple[np.ndarray, ...], Conv]:  # fmt: skip
    """A convolution's name, its arrays x, weight and bias, and its attributes."""
    arrays = (
        rng.standard_normal((n, c, size, size), np.float32),
        rng.standard_normal((f, c // groups, kernel, kernel), np.float32),
        rng.standard_normal(f, np.float32),
    )
    name = f"n{n} {c}->{f} {size}x{size} k{kernel} s{stride} p{padding}"
    if groups > 1:
        name += f" g{groups}"
    return name, arrays, Conv((stride, stride), (padding, padding), (1, 1), groups)


def conv_sides(arrays: tuple[np.ndarray, ...], conv: Conv) -> dict[str, Sides]:
    """Forward and backward of one convolution."""
    backend = minicnn.get_backend("cpp")
    x, weight, bias = (backend.asarray(a) for a in arrays)
    y = backend.conv2d_forward(x, weight, bias, **conv._asdict())
    dy = torch.randn_like(y)
    forward: Sides = {"minicnn": lambda: backend.conv2d_forward(x, weight, bias, **conv._asdict())}
    backward: Sides = {"minicnn": lambda: backend.conv2d_backward(dy, x, weight, **conv._asdict())}
    for name, order in FORMATS.items():
        run_forward, run_backward, expected = torch_conv(arrays, conv, dy, order)
        forward[name], backward[name] = run_forward, run_backward
        check_agree((y, *backward["minicnn"]()), (expected, *run_backward()))
    return {"forward": forward, "backward": backward}


def check_agree(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    """Raise AssertionError unless the results are torch's, within the rounding of float32 and Winograd."""
    for ours, theirs in zip(got, expected, strict=True):
        atol = 1e-3 * float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=atol, check_stride=False)


def torch_conv(
    arrays: tuple[np.ndarray, ...], conv: Conv, dy: torch.Tensor, order: torch.memory_format
) -> tuple[Callable[[], Any], Callable[[], Any], torch.Tensor]:
    images = [torch.from_numpy(a).contiguous(memory_format=order) for a in arrays[:2]]
    tensors = [t.requires_grad_() for t in (*images, torch.from_numpy(arrays[2]))]
    upstream = dy.contiguous(memory_format=order)
    y = F.conv2d(*tensors, *conv)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return F.conv2d(*tensors, *conv)

    return forward, lambda: torch.autograd.grad(y, tensors, upstream, retain_graph=True), y.detach()


def pool_sides(rng: np.random.Generator) -> tuple[str, dict[str, Sides]]:
    """Forward of a random max-pool that also returns the winners."""
    n, c, size = int(rng.integers(8, 65)), int(rng.integers(3, 97)), int(rng.integers(12, 65))
    kernel, stride = (int(v) for v in rng.choice([(2, 2), (3, 2), (3, 3)]))
    pool = Pool((kernel,) * 2, (stride,) * 2, (0, 0), (1, 1), False)
    backend = minicnn.get_backend("cpp")
    x = rng.standard_normal((n, c, size, size), np.float32)
    a = backend.asarray(x)
    sides: Sides = {"minicnn": lambda: backend.max_pool2d_forward(a, **pool._asdict())[0]}
    for name, order in FORMATS.items():
        sides[name] = torch_pool(torch.from_numpy(x).contiguous(memory_format=order), kernel, stride)
    torch.testing.assert_close(sides["minicnn"](), sides["torch eager"](), rtol=0, atol=0)
    return f"n{n} c{c} {size}x{size} k{kernel} s{stride}", {"forward": sides}


def torch_pool(x: torch.Tensor, kernel: int, stride: int) -> Callable[[], torch.Tensor]:
    return lambda: F.max_pool2d(x, kernel, stride, return_indices=True)[0]


def dense_sides(rng: np.random.Generator) -> tuple[str, dict[str, Sides]]:
    """Forward and backward of a random dense layer."""
    n, inputs, outputs = (int(rng.integers(low, high)) for low, high in ((16, 300), (50, 3000), (10, 1000)))
    backend = minicnn.get_backend("cpp")
    arrays = [rng.standard_normal(s, np.float32) for s in ((n, inputs), (outputs, inputs), (outputs,))]
    x, weight, bias = (backend.asarray(a) for a in arrays)
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    y = F.linear(*tensors)
    dy = torch.randn_like(y)

    def torch_forward() -> torch.Tensor:
        with torch.no_grad():
            return F.linear(*tensors)

    forward: Sides = {
        "minicnn": lambda: backend.dense_forward(x, weight, bias),
        "torch eager": torch_forward,
    }
    backward: Sides = {
        "minicnn": lambda: backend.dense_backward(dy, x, weight),
        "torch eager": lambda: torch.autograd.grad(y, tensors, dy, retain_graph=True),
    }
    for sides in (forward, backward):
        ours, theirs = (side() for side in sides.values())
        check_agree(ours if sides is backward else (ours,), theirs if sides is backward else (theirs,))
    return f"n{n} {inputs}->{outputs}", {"forward": forward, "backward": backward}


def random_net(rng: np.random.Generator) -> tuple[str, Sequential, int]:
    """Two or three convolutions of unusual sizes with ReLU, mostly with a pool, then a dense layer."""
    channels, size = int(rng.choice([1, 3])), int(rng.integers(20, 49))
    batch = int(rng.integers(8, 129))
    shape = (channels, size, size)
    layers: list[Any] = []
    for _ in range(int(rng.integers(2, 4))):
        width, kernel = int(rng.integers(5, 70)), int(rng.choice([3, 5]))
        layers += [Conv2d(channels, width, kernel, padding=kernel // 2), ReLU()]
        channels = width
        if rng.random() < 0.75:
            layers.append(MaxPool2d(2))
    layers.append(Flatten())
    features = Sequential(*layers).output_shape(shape)[0]
    model = Sequential(*layers, Dense(features, 10), backend="cpp", input_shape=shape)
    text = " ".join(repr(layer).replace(", padding", " p") for layer in layers[:-1])
    return f"batch {batch}, {'x'.join(map(str, shape))}: {text}", model, batch


def net_sides(rng: np.random.Generator) -> tuple[str, dict[str, Sides]]:
    name, model, batch = random_net(rng)
    assert model.input_shape is not None
    x = rng.standard_normal((batch, *model.input_shape), np.float32)
    y = rng.integers(0, 10, batch)
    modules = {peer: to_torch(model) for peer in FORMATS}
    trainer = Trainer(model, optim.SGD(1e-3))
    sides: Sides = {"minicnn": lambda: trainer.step(x, y)}
    for peer, module in modules.items():
        order = FORMATS[peer]
        images = torch.from_numpy(x).contiguous(memory_format=order)
        sides[peer] = torch_step(module.to(memory_format=order), images, torch.from_numpy(y), 1e-3)
    losses = [side() for side in sides.values()]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-3)
    return name, {"step": sides}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ops", type=int, default=40, help="convolutions; a third as many pools and denses"
    )
    parser.add_argument("--grouped", type=int, default=20, help="depthwise and grouped convolutions")
    parser.add_argument("--nets", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    minicnn.set_num_threads(2)
    torch.set_num_threads(2)
    rng = np.random.default_rng(args.seed)
    ratios: dict[str, float] = {}

    def measure(kind: str, name: str, phases: dict[str, Sides]) -> None:
        for phase, sides in phases.items():
            times = time_in_turn(sides, seconds=0.15 if kind != "net" else 0.6)
            best = min(t for side, t in times.items() if side != "minicnn")
            key = f"{kind} {phase}: {name}"
            ratios[key] = round(best / times["minicnn"], 2)
            print(f"{ratios[key]:6.2f}  {key}", flush=True)

    for _ in range(args.ops):
        name, arrays, conv = conv_problem(rng)
        measure("conv2d", name, conv_sides(arrays, conv))
    grouped = np.random.default_rng(
        [args.seed, 1]
    )  # a generator of its own, so that the other random shapes do not change
    for _ in range(args.grouped):
        name, arrays, conv = grouped_problem(grouped)
        measure("grouped conv2d", name, conv_sides(arrays, conv))
    for _ in range(args.ops // 3):
        measure("max_pool2d", *pool_sides(rng))
        measure("dense", *dense_sides(rng))
    for _ in range(args.nets):
        measure("net", *net_sides(rng))
    losses = {k: r for k, r in ratios.items() if r < (1.0 if k.startswith("net") else 0.8)}
    print(f"{len(ratios)} measured, {len(losses)} losses: {losses}")
    save("untuned", {"machine": machine(2), "best torch / minicnn": ratios, "losses": losses})


if __name__ == "__main__":
    main()
