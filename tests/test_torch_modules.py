"""minicnn.torch's modules, and accelerated ones with torch's samples, threads, forks and a compiler."""

from __future__ import annotations

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LISTED
from torch import nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import minicnn.torch as fast
from minicnn.backends import available_backends

# Importing torch's samples forbids the process to set torch's flags, which other tests do.
torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)


def sequence(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


class AddReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(x) + residual)


TWINS: dict[str, tuple[Any, nn.Module]] = {
    "Conv2d": (fast.Conv2d(4, 6, 3, padding="same"), nn.Conv2d(4, 6, 3, padding="same")),
    "ConvReLU": (fast.ConvReLU(4, 6, 3, stride=2), sequence(nn.Conv2d(4, 6, 3, stride=2), nn.ReLU())),
    "ConvMaxPool": (fast.ConvMaxPool(4, 6, 3), sequence(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2))),
    "ConvReLUMaxPool": (
        fast.ConvReLUMaxPool(4, 6, 3, pool=nn.MaxPool2d(3, 2, 1)),
        sequence(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    ),
    "Linear": (fast.Linear(9, 5), nn.Linear(9, 5)),
    "LinearReLU": (fast.LinearReLU(9, 5), sequence(nn.Linear(9, 5), nn.ReLU())),
    "BatchNorm2d": (fast.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, momentum=None)),
    "BatchNormReLU": (fast.BatchNormReLU(4), sequence(nn.BatchNorm2d(4), nn.ReLU())),
    "BatchNormAddReLU": (fast.BatchNormAddReLU(4), AddReLU()),
    "BatchNormReLUMaxPool": (
        fast.BatchNormReLUMaxPool(4), sequence(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    ),
    "MaxPool2d": (fast.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "AvgPool2d": (fast.AvgPool2d(2, padding=1), nn.AvgPool2d(2, padding=1)),
    "AdaptiveAvgPool2d": (fast.AdaptiveAvgPool2d((2, None)), nn.AdaptiveAvgPool2d((2, None))),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_a_module_is_its_twin_with_the_same_state(name: str) -> None:
    module, twin = (copy.deepcopy(m).double() for m in TWINS[name])
    holder = next((m for m in twin.modules() if m._parameters), twin)
    module.load_state_dict(holder.state_dict())
    shape = (5, 9) if "Linear" in name else (3, 4, 9, 8)
    inputs = [torch.randn(shape, dtype=torch.float64) for _ in range(1 + (name == "BatchNormAddReLU"))]
    results = []
    for m in (module, twin):
        given = [x.clone().requires_grad_() for x in inputs]
        learnt = [*given, *m.parameters()]
        y = m(*given)
        results.append([y, *torch.autograd.grad(y.square().sum(), learnt), m.eval()(*given)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
    assert module.state_dict().keys() == holder.state_dict().keys()
    torch.testing.assert_close(dict(module.state_dict()), dict(holder.state_dict()))


def test_options_that_modules_have_not() -> None:
    for make, message in (
        (
            lambda: fast.ConvReLU(1, 1, 3, padding_mode="circular"),
            r"\[Conv2d\] padding_mode: expected 'zeros'",
        ),
        (lambda: fast.MaxPool2d(2, return_indices=True), r"\[max_pool2d\] return_indices: expected False"),
        (lambda: fast.AvgPool2d(2, divisor_override=3), r"\[AvgPool2d\] divisor_override: expected None"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            make()


# ---- torch's own samples -------------------------------------------------------------------------------


def compare(plain: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A module and the accelerated copy of it give the same, forward and backward, or the same error."""
    module = fast.accelerate(copy.deepcopy(plain), choose="all")
    results: list[Any] = []
    for m in (plain, module):
        given = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
        try:
            y = m(*given, **named)
        except Exception as error:
            results.append(type(error))
            continue
        learnt = [t for t in (*given, *m.parameters()) if t.requires_grad]
        y = y if isinstance(y, torch.Tensor) else y[0]
        results.append((y, torch.autograd.grad(y.sum(), learnt), dict(m.state_dict())))
    if isinstance(results[0], type):
        assert isinstance(results[1], type)
    else:
        torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.Linear, nn.AvgPool2d])
def test_torchs_module_samples(kind: type[nn.Module]) -> None:
    (info,) = [info for info in module_db if info.module_cls is kind]
    count = 0
    for training in (True, False):
        for sample in info.module_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
        ):
            made, given = sample.constructor_input, sample.forward_input
            module = kind(*made.args, **made.kwargs).double().train(training)
            compare(nn.Sequential(module), given.args, given.kwargs)
            count += 1
    assert count >= 4


class Called(nn.Module):
    """A function's call with its options, as a module that can be accelerated."""

    def __init__(self, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        super().__init__()
        self.call = (function, args, options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        function, args, options = self.call
        return torch.relu(function(x, *args, **options))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"])
def test_torchs_function_samples(name: str) -> None:
    (info,) = [info for info in op_db if info.name == f"nn.functional.{name}"]
    samples = [*info.sample_inputs("cpu", torch.float64)]
    assert len(samples) >= 4
    for sample in samples[:: 1 + len(samples) // 40]:
        compare(Called(info.op, sample.args, sample.kwargs), (sample.input,), {})


# ---- threads, processes, compilers -----------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 25, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip


def train(module: nn.Module) -> list[float]:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(8, 1, 12, 12, generator=generator), torch.arange(8) % 3
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_four_threads_train_four_models() -> None:
    expected = train(fast.accelerate(net(), choose="all"))
    assert expected == pytest.approx(train(net()), rel=1e-4)
    models = [fast.accelerate(net(), choose="all") for _ in range(4)]
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(train, models)) == [expected] * 4
        assert train(fast.accelerate(net(), choose="all")) == expected
    finally:
        torch.set_num_threads(1)


def test_a_loader_with_workers_is_no_trouble() -> None:
    """The workers are forked after the parent has computed, and compute too."""
    program = """
import torch, sys
from torch import nn
from torch.utils.data import DataLoader, Dataset
import minicnn.torch as fast
torch.set_num_threads(2)
model = fast.accelerate(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), choose="all")
def loss(): return model.train()(images).sum()
images = torch.randn(12, 1, 12, 12)
before = loss().item()
class Images(Dataset):
    def __len__(self): return 12
    def __getitem__(self, i):
        with torch.no_grad():
            return i, images[i], model.eval()(images[i][None])[0]
model.eval()
with torch.no_grad():
    for i, x, y in DataLoader(Images(), 4, num_workers=2, multiprocessing_context="fork"):
        torch.testing.assert_close(model(x), y)
assert loss().item() == before
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*non-leaf.*:UserWarning"
)
def test_an_accelerated_module_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    expected = train(net())
    compiled = torch.compile(fast.accelerate(net(), choose="all"), fullgraph=True, backend="aot_eager")
    np.testing.assert_allclose(train(compiled), expected, rtol=1e-4)


def test_importing_minicnn_imports_no_torch() -> None:
    program = "import minicnn, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
