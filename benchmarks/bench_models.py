"""Whole training steps and inference: a group for each net, batch size and phase.

In a group there is a row for each backend and each peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nets import NETS
from rows import BACKENDS, INFERENCE, TRAINING, inference, training_step

BATCHES = [(name, n) for name, net in NETS.items() for n in net.batches]
OURS = tuple(row for row in BACKENDS if row not in TRAINING)


def call_of(
    make: Callable[[str, str, int], Callable[[], Any]], row: str, name: str, n: int
) -> Callable[[], Any]:
    """The row's call; skips the test if its library is missing or it takes too long at this batch size."""
    if row in ("torch.compile", *OURS) and n not in (1, NETS[name].batches[0]):
        pytest.skip("at a net's main batch size and at 1 only: it takes long")
    try:
        return make(row, name, n)
    except ImportError as error:
        pytest.skip(str(error))


# Inference comes first: OpenVINO forks, which is not safe once JAX has started its threads.
@pytest.mark.parametrize("row", [*INFERENCE, *OURS])
@pytest.mark.parametrize(("name", "n"), BATCHES)
def test_inference(benchmark: Any, name: str, n: int, row: str) -> None:
    call = call_of(inference, row, name, n)
    benchmark.group = f"{name}-{n}-inference"
    logits = benchmark.pedantic(call, rounds=10, warmup_rounds=2)
    np.testing.assert_allclose(logits, inference("torch eager", name, n)(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("row", [*TRAINING, *OURS])
@pytest.mark.parametrize(("name", "n"), BATCHES)
def test_step(benchmark: Any, name: str, n: int, row: str) -> None:
    step = call_of(training_step, row, name, n)
    assert step() == pytest.approx(training_step("torch eager", name, n)(), rel=1e-4)
    benchmark.group = f"{name}-{n}-step"
    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
