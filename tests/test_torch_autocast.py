"""torch.autocast with bfloat16: the operations' results beside torch's own, and accelerated modules."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import minicnn.torch as fast

STEP = 2.0**-8
"""The largest relative error of one rounding to bfloat16."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip


def close(actual: torch.Tensor, expected: torch.Tensor, roundings: int) -> None:
    """The same dtype, and no further apart than some roundings of the largest value are."""
    assert actual.dtype == expected.dtype
    largest = float(expected.detach().double().abs().max())
    torch.testing.assert_close(
        actual.detach().double(), expected.detach().double(), rtol=0, atol=roundings * STEP * largest
    )


class FunctionsCalled(TorchFunctionMode):
    """The names of torch's functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def test_operations_take_bfloat16_as_torchs_do() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    w, b = torch.randn(5, 4, 3, 3, requires_grad=True), torch.randn(5, requires_grad=True)
    dense = torch.randn(3, 80, requires_grad=True)
    conv: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)

    def ours() -> list[torch.Tensor]:
        ops = torch.ops.minicnn
        y = ops.conv2d_relu(x, w, b, *conv)
        rows = ops.dense(ops.flatten(y), dense, None)
        both = ops.concat([y, y.float()])
        return [y, rows, ops.add(y, y.float()), both, ops.softmax_cross_entropy(rows, torch.tensor([0, 1]))]

    def torchs() -> list[torch.Tensor]:
        y = F.relu(F.conv2d(x, w, b))
        rows = F.linear(y.flatten(1), dense)
        both = torch.cat([y, y.float()], 1)
        return [y, rows, y + y.float(), both, F.cross_entropy(rows, torch.tensor([0, 1]))]

    results = []
    for function in (ours, torchs):
        with torch.autocast("cpu", torch.bfloat16):
            values = function()
        loss = sum(value.float().mean() for value in values)
        assert isinstance(loss, torch.Tensor)
        results.append((values, torch.autograd.grad(loss, (x, w, b, dense))))
    assert [value.dtype for value in results[0][0]] == [torch.bfloat16] * 2 + [torch.float32] * 3
    for actual, expected in zip(*(values for values, _ in results), strict=True):
        close(actual, expected, 2)
    for actual, expected in zip(*(gradients for _, gradients in results), strict=True):
        close(actual, expected, 4)


def test_float16_runs_in_float32_and_float64_stays() -> None:
    w = torch.randn(5, 4)
    for dtype in (torch.float32, torch.float64):
        with torch.autocast("cpu", torch.float16):
            assert torch.ops.minicnn.dense(torch.ones(2, 4, dtype=dtype), w.to(dtype), None).dtype == dtype


@pytest.mark.parametrize("training", [True, False])
def test_an_accelerated_module_computes_in_bfloat16(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = net().train(training)
    module = fast.accelerate(copy.deepcopy(plain), choose="all")
    exact = copy.deepcopy(plain).double()
    x = torch.randn(4, 3, 8, 8)
    with monkeypatch.context() as patch:
        patch.setattr(F, "conv2d", None)  # which torch's own module would call
        with torch.autocast("cpu", torch.bfloat16):
            actual = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(x)
    reference = exact(x.double())
    assert actual.dtype == expected.dtype == torch.bfloat16
    error, allowed = ((y.double() - reference).abs().max() for y in (actual, expected))
    assert error <= 2 * allowed + STEP * reference.abs().max()
    for m, y in ((module, actual), (plain, expected)):
        y.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in m.parameters())
    for p, q in zip(module.parameters(), plain.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert torch.cosine_similarity(p.grad.flatten(), q.grad.flatten(), 0) > 0.99 or q.grad.norm() < 0.1


def test_what_was_timed_without_autocast_is_torchs_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the test lets everything that minicnn can replace be faster."""
    names = sys.modules["minicnn.torch.accelerate"], sys.modules["minicnn.torch.timing"]
    for name in names:
        monkeypatch.setattr(
            name, "fastest", lambda sides, **_: [3.0 / (1 + i) for i, _ in enumerate(sides)]
        )
    x = torch.randn(2, 3, 8, 8)
    for timed_under in (False, True):
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        module = copy.deepcopy(plain)
        with torch.autocast("cpu", torch.bfloat16, enabled=timed_under):
            fast.accelerate(module, x)
        copied = pickle.loads(pickle.dumps(module))
        for under in (False, True):
            for either in (module, copied):
                with torch.autocast("cpu", torch.bfloat16, enabled=under), FunctionsCalled() as called:
                    either(x)
                assert ("conv2d" in called.names) == (under != timed_under)
