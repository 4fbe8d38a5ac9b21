"""Forwards that accelerate reads: which it leaves alone, and which values stay what others see."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from conftest import LISTED
from torch import nn
from torch_cases import Written

import minicnn.torch as fast
from minicnn.backends import available_backends

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)


class Draws(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + x) * random.random()


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return F.relu(x + x)


class Constant(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + torch.ones(4))


class Logs(nn.Module):
    """Changes what it holds in attributes: a list in a dict, and a set."""

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[str, list[torch.Tensor]] = {"seen": []}
        self.shapes = {(4,)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log["seen"].append(x)
        self.shapes.add((1, 2))
        return F.relu(x + x)


class AsksInstance(nn.Module):
    def forward(self, x: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        return F.relu(sum(x) if isinstance(x, list | tuple) else x + x)


class AsksTensor(nn.Module):
    def forward(self, x: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        return F.relu(x + x) if torch.is_tensor(x) else x[0]


class AsksType(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + x) if self.is_plain(x) else x

    def is_plain(self, x: torch.Tensor) -> bool:
        return type(x) is torch.Tensor


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return F.relu(x + x)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Draws(), "its forward draws random numbers outside torch's functions"),
        (Counts(), "its forward changes or makes calls"),
        (Logs(), "its forward changes or makes log, shapes"),
        (AsksInstance(), "its forward asks what type a value is"),
        (AsksTensor(), "its forward asks what type a value is"),
        (AsksType(), "its forward asks what type a value is"),
        (Constant(), "its forward changes or makes _tensor_constant0"),
        (Buffered(), "its forward changes or makes seen"),
    ],
    ids=["random", "counter", "list", "isinstance", "is_tensor", "type", "constant", "buffer"],
)
def test_forwards_that_no_graph_stands_for_are_left(module: nn.Module, why: str) -> None:
    fast.accelerate(module, choose="all")
    (row,) = fast.report(module).rows
    assert row.why.startswith(why)
    own = {name: value for name, value in vars(module).items() if name in ("calls", "log", "shapes")}
    assert own in ({}, {"calls": 0}, {"log": {"seen": []}, "shapes": {(4,)}})
    assert getattr(module, "seen", torch.zeros(())) == 0
    assert module(torch.zeros(4)).shape == (4,)


WRITTEN = {
    "add": "y = x * 1; z = y + y; y += 1; return F.relu(z + y, inplace=True) + y",
    "alias": "y = self.conv(x); z = self.same(y); z += x; return F.relu(z) + y",
    "twice in place": "y = self.conv(x); z = y.relu_(); z += x; return F.relu(z) + y",
    "power": "y = self.conv(x); z = y; z **= 2; return F.relu(z + x) + y",
    "residual": "r = x * 1; z = self.norm(x) + r; r *= 2; return F.relu(z) + r",
    "alias between": "r = x * 1; t = self.same(r); z = self.norm(x) + r; t *= 2; return F.relu(z)",
    "broadcast": "return F.relu(self.norm(x) + self.p)",
    "broadcast after a convolution": "return F.relu(self.norm(self.conv(x)) + self.p)",
    "broadcast the other way": "return F.relu(self.norm(self.conv(x[:1])) + x)",
    "broadcast, two values": "return F.relu(x + self.p)",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_changes_in_place_that_others_see_and_broadcasts_are_torchs(name: str) -> None:
    torch.manual_seed(0)
    module, x = Written(WRITTEN[name], 3), torch.randn(2, 3, 4, 4)
    plain = copy.deepcopy(module)
    fast.accelerate(module, choose="all")
    for training in (True, False):
        with torch.no_grad():
            actual, expected = (m.train(training)(x) for m in (module, plain))
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
