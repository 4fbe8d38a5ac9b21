"""Times hard_swish and torch's own, forward and backward, in turn: python benchmark.py"""

import statistics
import time

import torch
import torch.nn.functional as F
from my_extension import hard_swish


def step(function, x: torch.Tensor) -> float:
    """Milliseconds of both directions."""
    start = time.perf_counter()
    function(x).sum().backward()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    for shape in ((8, 16, 16, 16), (32, 64, 56, 56)):
        x = torch.randn(shape, requires_grad=True)
        torch.testing.assert_close(hard_swish(x), F.hardswish(x))
        times = {"my_extension": [], "torch": []}
        for _ in range(30):
            for (_, samples), function in zip(times.items(), (hard_swish, F.hardswish), strict=True):
                samples.append(step(function, x))
        medians = {side: f"{statistics.median(samples):.3f} ms" for side, samples in times.items()}
        print(shape, medians)
