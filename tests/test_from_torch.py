"""Modules with a forward of their own become minicnn models: torchvision's, and what cannot be taken."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch_cases import Written

from minicnn import Trainer, optim
from minicnn.backends import Backend
from minicnn.layers import Network, ReLU
from minicnn.layers.network import Wire
from minicnn.torch_reference import from_torch, to_torch


class Small(nn.Module):
    """Functions and modules, a sum, a concatenation, one ReLU at two places, a part that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.relu, self.same = nn.ReLU(inplace=True), nn.Identity()
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.unused = nn.Linear(32, 3), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        x = self.same(self.relu(self.body(x) + x))
        x = torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 1)
        x = F.adaptive_avg_pool2d(F.relu(x), (2, 2))
        return self.head(F.dropout(torch.flatten(x, 1), 0.0, self.training))


def test_it_trains_as_in_torch(backend: Backend, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    module = Small().double()
    model = from_torch(module, backend=backend, input_shape=(2, 8, 8))
    assert isinstance(model, Network)
    assert "unused.weight" not in model.state_dict()
    assert {"stem.0.weight", "stem.1.running_mean", "body.bias", "head.weight"} <= {*model.state_dict()}
    ops = model.graph(training=True).ops
    assert {"batch_norm2d_relu", "add_relu", "concat", "dropout"} <= ops
    x, y = rng.standard_normal((5, 2, 8, 8)), np.arange(5) % 3
    trainer = Trainer(model, optim.SGD(lr=0.1))
    torchs = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        torchs.zero_grad()
        loss = F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        torchs.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-9)
    back = to_torch(model)
    assert back.relu is not None
    state = module.state_dict()
    for name, a in back.state_dict().items():
        np.testing.assert_allclose(a, state[name], rtol=1e-9, atol=1e-12, err_msg=name)
    again = from_torch(back, backend=backend)
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-9)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "googlenet"])
def test_torchvisions_models(name: str) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    module = getattr(torchvision.models, name)(num_classes=3, **options)
    model = from_torch(module, backend="numpy", input_shape=(3, 33, 33))  # which compares both
    assert model.state_dict().keys() == module.state_dict().keys()


def test_mobilenet_v2_has_torchs_gradients() -> None:
    """Its ReLU6 stops some values: the batch norms' scale is raised for that."""
    torch.manual_seed(0)
    module = torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.25, dropout=0.0).double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, 4.0)
    model = from_torch(module, backend="numpy", input_shape=(3, 33, 33))  # which compares both
    assert model.state_dict().keys() == module.state_dict().keys()
    x, y = torch.randn(3, 3, 33, 33, dtype=torch.float64), torch.arange(3)
    loss = F.cross_entropy(module(x), y)
    loss.backward()
    assert Trainer(model, optim.SGD(lr=0.1)).compute_gradients(x.numpy(), y.numpy()) == pytest.approx(
        loss.item()
    )
    layers = dict(model.named_layers())
    for name, parameter in module.named_parameters():
        owner, _, own = name.rpartition(".")
        expected = parameter.grad
        assert expected is not None
        actual, atol = layers[owner].grads[own], 1e-9 * float(expected.abs().max()) + 1e-12
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


class Squares(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


class Inside(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def kind(x: object) -> object:
    return type(x)


class Asks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) if kind(x) is torch.Tensor else x


class AsksInstance(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) if isinstance(x, torch.Tensor) else x


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


@pytest.mark.parametrize(
    "code",
    [
        "y = self.conv(x); return self.relu(y) + y",
        "y = z = self.conv(x); z += x; return y + z",
        "y = self.conv(x); z = self.drop(y); F.relu(z, inplace=True); return y + x",
        "y = self.conv(x); z = y.relu_(); z += x; return F.relu(z) + y",
        "y = self.conv(x); torch.add(x, x, out=y); return F.relu(y)",
    ],
)
def test_changes_in_place_that_others_read_are_refused(code: str) -> None:
    with pytest.raises(
        ValueError, match=r"^\[from_torch\] .*: expected no change in place that others read, got"
    ):
        from_torch(Written(code, 1), backend="numpy")


def test_changes_in_place_that_nobody_else_reads_are_taken() -> None:
    module = Written("y = self.conv(x); z = y + x; y += x; z = self.relu(z); return F.relu_(y) + z + x", 1)
    from_torch(module, backend="numpy", input_shape=(1, 3, 3))  # which compares both


def test_a_function_and_a_module_of_its_name_are_two() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu_, self.relu = nn.MaxPool2d(2), nn.AvgPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(F.relu_(F.relu(self.relu_(x))))

    model = from_torch(Named(), backend="numpy", input_shape=(1, 4, 4))  # which compares both
    assert [type(layer).__name__ for layer in model.children.values()] == [
        "MaxPool2d",
        "ReLU",
        "ReLU",
        "AvgPool2d",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Inside(Squares()),
            r"part, .*test_from_torch.py:\d+, `return x \* x`: expected an op.*, got mul",
        ),
        (
            lambda: Inside(nn.GELU()),
            r"module: expected one that minicnn has, got GELU \(part, .*`return self.p",
        ),
        (lambda: Inside(Asks()), "Inside: .*: its forward asks what type a value is"),
        (lambda: Inside(AsksInstance()), "Inside: .*: its forward asks what type a value is"),
        (Branches, r"Branches: expected a forward that torch.fx can trace: symbolically traced"),
        (Two, r"Two.*: expected one input, got y"),
        (lambda: nn.Linear(2, 2), "module: expected nn.Sequential or a module of one's own, got Linear"),
    ],
    ids=["function", "module", "type", "isinstance", "control flow", "two inputs", "layer"],
)
def test_what_it_cannot_take_it_names(make: Callable[[], nn.Module], message: str) -> None:
    module = make()
    with pytest.raises(ValueError, match=rf"^\[from_torch\] {message}"):
        from_torch(module, backend="numpy")
    assert module.training


@pytest.mark.parametrize(
    ("wires", "message"),
    [
        ([Wire("x", (0,))], "expected names of children, '+' or 'cat', got 'x'"),
        ([Wire("relu", (1,))], "expected numbers of earlier values, got (1,)"),
    ],
)
def test_wires_that_lead_nowhere_are_refused(wires: list[Wire], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape('[Network] wires: ' + message)}$"):
        Network({"relu": ReLU()}, wires)
