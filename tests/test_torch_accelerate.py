"""minicnn.torch.accelerate: the same results, and the module stays what it was for everybody else."""

from __future__ import annotations

import copy
import importlib
import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import LISTED
from torch import nn

import minicnn.torch as fast
from minicnn.backends import available_backends
from minicnn.torch.replacement import Replacement
from minicnn.torch.steps import Timing

MODULE = importlib.import_module("minicnn.torch.accelerate")  # the package has a function of that name
REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)


class Block(nn.Module):
    """A residual block as torchvision writes it: one ReLU at two places, ``+=``."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.downsample(x)
        return self.relu(out)


class Net(nn.Module):
    """Every kind of step, by modules and by functions; "unknown" has a forward that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding="same")
        self.norm = nn.BatchNorm2d(6, momentum=None)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.block = Block(6, 8, 2)
        self.branch = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.other = nn.Conv2d(8, 3, 1)
        self.unknown = Unknown(7)
        self.drop = nn.Dropout(0.25)
        self.fc1, self.fc2 = nn.Linear(28, 9), nn.Linear(9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.norm(self.stem(x))))
        x = self.block(x)
        x = torch.cat([self.branch(x), F.relu(F.max_pool2d(self.other(x), 2))], 1)
        x = self.unknown(F.avg_pool2d(x, 2, padding=1))
        x = F.adaptive_avg_pool2d(x, (2, None)).flatten(1)
        return self.fc2(self.drop(F.relu(self.fc1(x))))


class Unknown(nn.Module):
    """Branches on a value."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, channels, 1), nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.fc(x.mean((2, 3)))[..., None, None] if x.sum() > -1e9 else x


def net(dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype)


def batch(dtype: torch.dtype = torch.float64, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, 24, 24, dtype=dtype, generator=generator), torch.arange(n) % 3


def train(module: nn.Module, steps: int = 3) -> list[float]:
    """Losses of some steps of SGD, as people write them."""
    x, y = batch(next(module.parameters()).dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    assert list(a.state_dict()) == list(b.state_dict())
    for name, tensor in a.state_dict().items():
        np.testing.assert_allclose(
            tensor.numpy(), b.state_dict()[name].numpy(), rtol=1e-9, atol=1e-11, err_msg=name
        )


def replaced(module: nn.Module) -> dict[str, str]:
    return {f"{row.mode}: {row.names}": row.op for row in fast.report(module).rows if row.replaced}


def test_training_and_evaluation_are_the_same() -> None:
    plain, module = net(), net()
    identities = [id(p) for p in module.parameters()]
    assert fast.accelerate(module, choose="all") is module
    assert [id(p) for p in module.parameters()] == identities
    assert train(module) == pytest.approx(train(plain), rel=1e-10)
    assert_same_state(module, plain)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            actual, expected = (m.eval()(batch()[0]) for m in (module, plain))
        np.testing.assert_allclose(actual.detach(), expected.detach(), rtol=1e-9)


def test_every_kind_of_neighbours_is_found() -> None:
    module = fast.accelerate(net(), choose="all")
    assert replaced(module) == {
        "training: stem": "conv2d",
        "training: norm, relu(), pool": "batch_norm2d_relu_max_pool2d",
        "training: other, max_pool2d(), relu()": "conv2d_relu_max_pool2d",
        "training: concat()": "concat",
        "training: avg_pool2d()": "avg_pool2d",
        "training: adaptive_avg_pool2d()": "adaptive_avg_pool2d",
        "training: fc1, relu()": "dense_relu",
        "training: fc2": "dense",
        "training: block.conv1": "conv2d",
        "training: block.bn1, block.relu": "batch_norm2d_relu",
        "training: block.conv2": "conv2d",
        "training: block.bn2, block.add(), block.relu": "batch_norm2d_add_relu",
        "training: block.downsample.0": "conv2d",
        "training: block.downsample.1": "batch_norm2d",
        "training: branch.0, branch.1, branch.2": "conv2d_relu_max_pool2d",
        "training: unknown.conv": "conv2d",
        "training: unknown.fc": "dense",
        "evaluation: stem, norm, relu(), pool": "conv2d_relu_max_pool2d (batch norm folded)",
        "evaluation: other, max_pool2d(), relu()": "conv2d_relu_max_pool2d",
        "evaluation: concat()": "concat",
        "evaluation: avg_pool2d()": "avg_pool2d",
        "evaluation: adaptive_avg_pool2d()": "adaptive_avg_pool2d",
        "evaluation: fc1, relu()": "dense_relu",
        "evaluation: fc2": "dense",
        "evaluation: block.conv1, block.bn1, block.relu": "conv2d_relu (batch norm folded)",
        "evaluation: block.conv2, block.bn2, block.add(), block.relu":
            "conv2d (batch norm folded), add_relu",
        "evaluation: block.downsample.0, block.downsample.1": "conv2d (batch norm folded)",
        "evaluation: branch.0, branch.1, branch.2": "conv2d_relu_max_pool2d",
    }  # fmt: skip
    (left,) = [row for row in fast.report(module).rows if not row.replaced]
    assert left.names == "unknown"
    assert left.why.startswith(
        "torch.fx cannot trace it: symbolically traced variables cannot be used as inputs"
    )
    assert "unknown" in str(fast.report(module))


def test_it_computes_with_minicnn(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    from minicnn.torch import calls, steps

    real = calls.call
    for module in (calls, steps):
        monkeypatch.setattr(module, "call", lambda name, *args: called.append(name) or real(name, *args))
    module = fast.accelerate(net(), choose="all")
    module(batch()[0])
    assert called == [
        "conv2d", "batch_norm2d_relu_max_pool2d", "conv2d", "batch_norm2d_relu", "conv2d", "conv2d",
        "batch_norm2d", "batch_norm2d_add_relu", "conv2d_relu_max_pool2d", "conv2d_relu_max_pool2d",
        "concat", "avg_pool2d", "conv2d", "dense", "adaptive_avg_pool2d", "dense_relu", "dense",
    ]  # fmt: skip


def strides(module: nn.Module) -> list[tuple[int, ...]]:
    return [p.stride() for p in module.parameters()]


def attributes(module: nn.Module) -> list[list[str]]:
    return [[*vars(part)] for part in module.modules()]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_restore_gives_the_module_back(order: torch.memory_format) -> None:
    plain, module = (net().to(memory_format=order) for _ in range(2))
    module.block.conv2.weight.data = module.block.conv2.weight.data.permute(
        1, 0, 2, 3
    )  # an order of its own
    plain.block.conv2.weight.data = plain.block.conv2.weight.data.permute(1, 0, 2, 3)
    copied = copy.deepcopy(fast.accelerate(module, choose="all"))
    assert module.block.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for restored in (fast.restore(module), fast.restore(copied)):
        assert attributes(restored) == attributes(plain)
        assert strides(restored) == strides(plain)
    assert train(module) == train(plain)
    assert_same_state(module, plain)
    with pytest.raises(ValueError, match=r"^\[report\] module: expected an accelerated one"):
        fast.report(module)


def test_a_layers_own_forward_stays() -> None:
    conv = nn.Conv2d(1, 2, 3)
    conv.forward = own = lambda x: -x  # type: ignore[method-assign,assignment]
    before = strides(conv)
    fast.accelerate(conv, choose="all")
    assert (conv.forward, strides(conv)) == (own, before)
    (row,) = fast.report(conv).rows
    assert row.why == "its forward was replaced already"
    assert fast.restore(conv).forward is own
    relu = fast.accelerate(nn.ReLU(), choose="all")
    assert str(fast.report(relu)) == "nothing can be replaced"
    assert "forward" not in vars(relu)


def test_an_example_that_fails_changes_nothing() -> None:
    plain, module = net(), net()
    for example in (torch.zeros(1, 5, 24, 24).double(), "images"):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            fast.accelerate(module, example)
        assert attributes(module) == attributes(plain)
        assert strides(module) == strides(plain)
    assert_same_state(module, plain)


@pytest.mark.parametrize("failing", ["_record", "_arrange_weights", "_rows"])
def test_nor_does_an_error_at_a_later_moment(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, called = net(), getattr(MODULE, failing)

    def fail(*args: Any) -> None:
        called(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "fastest", lambda sides, **_: [1.0 - 0.1 * i for i, _ in enumerate(sides)])
    monkeypatch.setattr(MODULE, "time_step", lambda *_: Timing(2.0, 1.0))
    monkeypatch.setattr(MODULE, failing, fail)
    with pytest.raises(KeyboardInterrupt):
        fast.accelerate(module, batch()[0])
    assert attributes(module) == attributes(net())
    assert strides(module) == strides(net())


def saved_and_loaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded], ids=["deepcopy", "torch.save"])
def test_copies_are_modules_of_their_own(copied: Any) -> None:
    original = fast.accelerate(net(), choose="all")
    original.block.forward.plans[True].steps["conv1"].on[True] = False
    module, plain = copied(original), net()
    assert isinstance(vars(module)["forward"], Replacement)
    losses = train(module)
    assert losses == pytest.approx(train(plain), rel=1e-10)
    assert_same_state(module, plain)
    assert_same_state(original, net())
    assert module.block.forward.plans[True].steps["conv1"].on == {True: False, False: True}
    assert module.block.forward.module is module.block


def test_state_dicts_hooks_and_frozen_parts() -> None:
    plain, module = net(), fast.accelerate(net(), choose="all")
    module.load_state_dict(plain.state_dict())
    heard: list[str] = []
    module.block.register_forward_hook(lambda *_: heard.append("block"))
    module.fc1.register_forward_hook(lambda *_: heard.append("fc1"))
    module.norm.register_full_backward_hook(lambda *_: heard.append("norm"))
    for m in (plain, module):
        m.block.bn1.eval()
        m.block.conv2.requires_grad_(False)
    assert train(module, 1) == pytest.approx(train(plain, 1), rel=1e-10)
    assert heard == ["block", "fc1", "norm"]
    assert module.block.conv2.weight.grad is None
    assert_same_state(module, plain)


def test_changes_after_it_are_seen() -> None:
    """Another child, another attribute that the forward names: the module's own forward runs."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.scale, self.note = nn.Linear(4, 4), 1, 0

        def forward(self, x: torch.Tensor, twice: bool = False) -> torch.Tensor:
            y = F.relu(self.fc(x)) * self.scale
            return 2 * y if twice else y

    module = fast.accelerate(Scaled(), choose="all")
    x = torch.randn(2, 4)
    y = module(x)
    module.note = 5  # not named by the forward
    assert vars(module)["forward"]._as_traced()
    module.scale = 3
    np.testing.assert_allclose(module(x).detach(), 3 * y.detach(), rtol=1e-6)
    np.testing.assert_allclose(module(x, twice=True).detach(), 6 * y.detach(), rtol=1e-6)
    module.fc = nn.Identity()
    np.testing.assert_allclose(module(x), 3 * F.relu(x), rtol=1e-6)


@pytest.mark.parametrize("what", ["bfloat16", "float16 autocast", "vmap", "3 dimensions"])
def test_what_minicnn_has_not_runs_in_torch(what: str) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    plain = copy.deepcopy(module)
    fast.accelerate(module, choose="all")
    x = torch.randn(4, 2, 6, 6)
    if what == "bfloat16":
        actual, expected = (m.bfloat16()(x.bfloat16()) for m in (module, plain))
    elif what == "float16 autocast":
        with torch.autocast("cpu", torch.float16):
            actual, expected = module(x), plain(x)
        assert actual.dtype == torch.float16
    elif what == "vmap":
        actual, expected = (torch.vmap(m)(x[:, None]) for m in (module, plain))
    else:
        actual, expected = module(x[0]), plain(x[0])
    torch.testing.assert_close(actual, expected)


def test_it_times_and_keeps_nothing_of_it() -> None:
    module = net(torch.float32)
    x, _ = batch(torch.float32)
    state = copy.deepcopy(module.state_dict())
    module.block.eval()
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    fast.accelerate(module, x)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(a, state[name]) for name, a in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert (module.training, module.block.training, module.block.bn1.training) == (True, False, False)
    told = fast.report(module)
    timed = [row for row in told.rows if row.timing is not None]
    assert len(timed) >= 20
    for row in timed:
        assert row.timing.modules > 0
        assert row.timing.step > 0
        assert row.why
    for mode, timing in told.whole.items():
        assert timing.step < timing.modules, mode
    fast.accelerate(module, x)  # once more is no harm
    fast.restore(module)
    assert all("forward" not in vars(part) for part in module.modules())


def test_nothing_is_replaced_where_the_whole_is_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "fastest", lambda sides, **_: [1.0 + i for i, _ in enumerate(sides)])
    module = fast.accelerate(net(torch.float32), batch(torch.float32)[0])
    assert all("forward" not in vars(part) for part in module.modules())
    assert strides(module) == strides(net())
    assert not replaced(module)
    assert str(fast.report(module)).startswith("nothing is replaced: the whole is not faster")


def test_the_whole_is_compared_with_what_the_module_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in another order may make torch slower; the module is timed before they are."""
    module, timed = net(torch.float32), []

    def fastest(sides: Any, **_: Any) -> list[float]:
        timed.append(
            (len(sides), strides(module), [part for part in module.modules() if "forward" in vars(part)])
        )
        return [1.0] if len(sides) == 1 else [3.0, *([2.0] * (len(sides) - 1))]

    monkeypatch.setattr(MODULE, "fastest", fastest)
    fast.accelerate(module, batch(torch.float32)[0])
    assert timed[:2] == [(1, strides(net()), [])] * 2
    assert all(sides > 1 for sides, *_ in timed[2:])
    assert not replaced(module)
    assert not fast.report(module).whole


def test_wrong_arguments() -> None:
    with pytest.raises(
        ValueError, match=r"^\[accelerate\] example: expected what the module is called with"
    ):
        fast.accelerate(net())
    with pytest.raises(
        ValueError, match=r"^\[accelerate\] choose: expected 'faster' or 'all', got 'best'$"
    ):
        fast.accelerate(net(), choose="best")
    with pytest.raises(ValueError, match=r"^\[accelerate\] module: expected a torch.nn.Module, got int$"):
        fast.accelerate(3, choose="all")  # type: ignore[type-var]
