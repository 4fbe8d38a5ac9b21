"""Frozen layers: what they no longer cost, that they stay, and that the rest trains as autograd says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from minicnn import Trainer, models, optim
from minicnn.backends import Backend
from minicnn.backends.device import device_of
from minicnn.ema import WeightAverage
from minicnn.layers import (
    BatchNorm2d,
    Conv2d,
    Dense,
    Flatten,
    MaxPool2d,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)
from minicnn.torch_reference import to_torch

SHAPE = (2, 8, 8)


def net(backend: Backend | str, dtype: str = "float64") -> Sequential:
    """Every kind of fused step and container, before and after what the tests freeze."""
    block = {
        "conv1": Conv2d(4, 4, 3, padding=1, bias=False),
        "bn1": BatchNorm2d(4),
        "relu1": ReLU(),
        "conv2": Conv2d(4, 4, 3, padding=1, bias=False),
        "bn2": BatchNorm2d(4),
    }
    layers = {
        "conv0": Conv2d(2, 4, 3, padding=1),
        "relu0": ReLU(),
        "pool0": MaxPool2d(2),
        "conv1": Conv2d(4, 4, 3, padding=1),
        "bn1": BatchNorm2d(4),
        "relu1": ReLU(),
        "pool1": MaxPool2d(2),
        "block": Residual(
            Sequential(block), Sequential(Conv2d(4, 4, 1), BatchNorm2d(4)), activation=ReLU()
        ),
        "mixed": Parallel({"a": Conv2d(4, 3, 1), "b": Sequential(Conv2d(4, 2, 1), ReLU())}),
        "flatten": Flatten(),
        "fc1": Dense(20, 6),
        "relu2": ReLU(),
        "fc2": Dense(6, 3),
    }  # fmt: skip
    return Sequential(layers, backend=backend, seed=4, dtype=dtype, input_shape=SHAPE)


def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((5, *SHAPE)), rng.integers(0, 3, 5)


def frozen_torch(model: Sequential) -> nn.Module:
    """The same net in torch, frozen as one does there."""
    module = to_torch(model)
    for name, layer in model.named_layers():
        if layer.params and not layer.requires_grad:
            twin = module.get_submodule(name).requires_grad_(False)
            if isinstance(layer, BatchNorm2d):
                twin.eval()
    return module


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize(
    "frozen",
    [
        ["conv0"], ["conv0", "conv1", "bn1"], ["block"], ["block.conv1", "block.bn2"], ["*bn*"],
        ["block.downsample"], ["conv?", "block", "mixed.a"], ["mixed", "fc1"], ["bn1", "fc2"],
        ["conv?", "bn1", "block.[cb]*"],
    ],
    ids=",".join,
)  # fmt: skip
def test_training_is_torchs_and_frozen_layers_stay(
    backend: Backend, frozen: list[str], fuse: bool, rng: np.random.Generator
) -> None:
    model = net(backend)
    model.freeze(*frozen)
    before, module = model.state_dict(), frozen_torch(model)
    kept = {name for name, layer in model.named_layers() if not layer.requires_grad}
    trainer = Trainer(model, optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.1), fuse=fuse)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        x, y = batch(rng)
        trainer.step(x, y)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    assert model.named_gradients().keys() == {n for n, p in module.named_parameters() if p.requires_grad}
    after = model.state_dict()
    for name, a in module.state_dict().items():
        np.testing.assert_allclose(after[name], a, rtol=1e-9, atol=1e-12, err_msg=name)
        if name.rpartition(".")[0] in kept:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        elif not name.endswith("tracked"):
            assert not np.array_equal(after[name], before[name]), name


def count_backward(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each backward operation has been called, and with which gradients asked for."""
    calls: Counter[str] = Counter()

    def watch(name: str, operation: Callable[..., object]) -> None:
        def spy(*args: object, **kwargs: object) -> object:
            calls[name] += 1
            calls["dw"] += bool(kwargs.get("need_dw"))
            return operation(*args, **kwargs)

        monkeypatch.setattr(backend, name, spy, raising=False)

    for name in dir(backend):
        if name.endswith("_backward"):
            watch(name, getattr(backend, name))
    return calls


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_frozen_layers_cost_no_backward_operations(
    backend: Backend, fuse: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    model = net(backend, "float32")
    trainer = Trainer(model, optim.Adam(), fuse=fuse)
    model.freeze("conv*", "bn1", "block", "mixed", "fc1")
    x, y = batch(rng)
    calls = count_backward(backend, monkeypatch)
    trainer.step(x.astype(np.float32), y)
    loss = {} if device_of(backend) else {"softmax_cross_entropy_backward": 1}  # a device's is no operation
    assert dict(calls) == {**loss, "dense_backward": 1, "dw": 1}


def test_only_what_is_needed_is_asked_for_after_a_trained_layer(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Frozen layers after a trained one pass the gradient on, without gradients of their own."""
    model = net(backend, "float32")
    trainer = Trainer(model, optim.Adam(), fuse=False)
    model.freeze("conv0", "block", "mixed", "fc?")
    x, y = batch(rng)
    calls = count_backward(backend, monkeypatch)
    trainer.step(x.astype(np.float32), y)
    assert calls["conv2d_backward"] == 6  # conv1, three of the block, two of mixed
    assert calls["dense_backward"] == 2
    assert calls["dw"] == 2  # conv1 and bn1
    assert calls["max_pool2d_backward"] == 1  # pool1, but not pool0


def test_averages_leave_frozen_layers_alone(backend: Backend, rng: np.random.Generator) -> None:
    model = net(backend, "float32")
    model.freeze("block")
    before = model.state_dict()
    trainer, average = Trainer(model, optim.SGD(lr=0.3)), WeightAverage(model, 0.9)
    for _ in range(4):
        x, y = batch(rng)
        trainer.step(x.astype(np.float32), y)
        average.update()
    with average.applied():
        for name, a in model.state_dict().items():
            if name.startswith("block."):
                np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_frozen_resnet_trains_its_head(backend: Backend, rng: np.random.Generator) -> None:
    model = models.create("resnet20", in_channels=2, num_classes=3, image_size=8, backend=backend)
    model.freeze("conv1", "bn1", "layer?")
    assert [*model.named_parameters(trainable_only=True)] == ["fc.weight", "fc.bias"]
    assert model.named_buffers(trainable_only=True) == {}
    before = model.state_dict()
    x, y = batch(rng)
    Trainer(model, optim.AdamW(weight_decay=0.1)).step(x.astype(np.float32), y)
    changed = [name for name, a in model.state_dict().items() if not np.array_equal(a, before[name])]
    assert changed == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("name", ["conv", "conv0.weight", "relu0", "", "block.conv9"])
def test_unknown_name_is_refused(name: str) -> None:
    model = net("numpy")
    message = r"^\[freeze\] names: expected layers with parameters, in or below conv0, .*, fc2; got "
    with pytest.raises(ValueError, match=f"{message}{name}$"):
        model.freeze("fc1", name)
    assert model.children["fc1"].requires_grad


def test_a_frozen_norm_without_parameters_keeps_its_statistics(rng: np.random.Generator) -> None:
    model = Sequential({"norm": BatchNorm2d(3, affine=False), "flat": Flatten(), "fc": Dense(48, 2)})
    with pytest.raises(ValueError, match=r"^\[freeze\] layer: expected one bound to a backend"):
        model.freeze("norm")
    model.bind("numpy")
    model.freeze("norm")
    x = rng.standard_normal((5, 3, 4, 4)).astype(np.float32)
    Trainer(model, optim.SGD(0.1)).step(x, np.array([0, 1, 0, 1, 1]))
    np.testing.assert_array_equal(model.state_dict()["norm.running_mean"], np.zeros(3))


def test_printed_model_counts_what_is_frozen() -> None:
    model = net("numpy")
    assert "frozen" not in str(model)
    model.freeze("fc1", "bn1")
    assert f" parameters ({20 * 6 + 6 + 8} frozen)" in str(model)
