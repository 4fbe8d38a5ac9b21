"""Times the steps of examples/fused, from the naive kernel to the last one, with the library and PyTorch.

    python benchmarks/ladder.py [--seconds 1.5]

They take turns on the second convolution of simple_cnn at batch 128.  First, every value of every step is
compared with PyTorch's.  Writes benchmarks/results/ladder.json, from which benchmarks/report.py fills
docs/fused.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from paired import machine, save, time_in_turn
from peak import peak_gflops
from peers import PEERS
from rows import Call, use_threads

import minicnn
from minicnn.backends import Conv, Pool

sys.path.append(str(Path(__file__).parent.parent / "examples" / "fused"))
import fused_steps

SIZES = (128, 32, 14, 64)  # N, C, H = W, F
THREADS = 2
CONV, POOL = Conv((1, 1), (1, 1), (1, 1), 1), Pool((2, 2), (2, 2), (0, 0), (1, 1), False)


def library_calls(p: fused_steps.Problem, dy: np.ndarray) -> tuple[Call, Call]:
    """minicnn's own fused operation: forward as in training, and the gradient to the weights."""
    backend = minicnn.get_backend("cpp")
    x, weight, bias, d = (backend.asarray(a) for a in (*p, dy))
    _, saved = backend.conv2d_relu_max_pool2d_forward(x, weight, bias, conv=CONV, pool=POOL)

    def forward() -> Any:
        return backend.conv2d_relu_max_pool2d_forward(x, weight, bias, conv=CONV, pool=POOL)[0]

    def backward() -> Any:
        return backend.conv2d_relu_max_pool2d_backward(
            d, x, weight, saved, conv=CONV, pool=POOL, need_dx=False, need_db=False
        )[1]

    return forward, backward


def torch_calls(row: str, p: fused_steps.Problem, dy: np.ndarray) -> tuple[Call, Call]:
    """The same in PyTorch: forward, which keeps what backward needs, and the gradient to the weights."""
    peer = PEERS[row]
    x, weight, d = map(peer.images, (p.x, p.weight, dy))
    bias = torch.from_numpy(p.bias)
    weight.requires_grad_()
    layer = peer.wrap(lambda: F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=1)), 2))
    y = layer()
    return layer, lambda: torch.autograd.grad(y, weight, d, retain_graph=True)[0]


def rounded(times: dict[str, float]) -> dict[str, float]:
    return {name: round(t, 3) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="measuring time of each step")
    args = parser.parse_args()
    use_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        libraries = fused_steps.build([*fused_steps.FORWARD, *fused_steps.BACKWARD], Path(folder))
    fused_steps.check(libraries, fused_steps.problem(*SIZES, whole_numbers=True), THREADS)
    p = fused_steps.problem(*SIZES)
    forward: dict[str, Call] = {
        name: fused_steps.forward(name, libraries[name], p, THREADS) for name in fused_steps.FORWARD
    }
    y, winner = forward["step6_fused_pool"]()
    dy = np.random.default_rng(1).standard_normal(y.shape, np.float32)
    backward: dict[str, Call] = {
        name: fused_steps.backward(libraries[name], p, dy, winner, THREADS) for name in fused_steps.BACKWARD
    }
    forward["minicnn"], backward["minicnn"] = library_calls(p, dy)
    for row in PEERS:
        forward[row], backward[row] = torch_calls(row, p, dy)
    torch.testing.assert_close(torch.from_numpy(y.copy()), forward["minicnn"](), rtol=1e-4, atol=1e-3)
    n, c, size, f = SIZES
    result = {
        "machine": machine(THREADS),
        "layer": f"{n} images of {c}x{size}x{size}, {f} filters 3x3",
        "multiply-adds": p.multiply_adds,
        "GFLOP/s at peak": {"1 thread": peak_gflops(1), f"{THREADS} threads": peak_gflops(THREADS)},
        "forward, ms": rounded(time_in_turn(forward, seconds=args.seconds)),
        "backward, ms": rounded(time_in_turn(backward, seconds=args.seconds)),
    }
    print(result)
    save("ladder", result)


if __name__ == "__main__":
    main()
