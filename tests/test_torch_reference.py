"""to_torch and from_torch: the same model on both sides, weights and names included."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from test_layers import BUILDERS, SHAPE
from torch import nn

from minicnn import models
from minicnn.backends import Backend
from minicnn.layers import AvgPool2d, Conv2d, Layer, MaxPool2d, ReLU, Sequential
from minicnn.torch_reference import from_torch, to_torch

# torch warns that it copies the image where the sides of padding="same" differ
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


@pytest.mark.parametrize("name", ["lenet5", "simple_cnn", "resnet20"])
def test_model_computes_the_same_in_torch(
    backend: Backend, name: str, dtype: np.dtype, rng: np.random.Generator
) -> None:
    model = models.create(
        name, in_channels=2, num_classes=5, image_size=16, backend=backend, seed=1, dtype=dtype.name
    )
    module = to_torch(model)
    assert module.training
    assert {str(p.dtype) for p in module.parameters()} == {f"torch.{dtype}"}
    assert list(module.state_dict()) == list(model.state_dict())
    x = rng.standard_normal((3, 2, 16, 16)).astype(dtype)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    allowed = 1e-11 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(model.predict(x), expected, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("kind", BUILDERS)
def test_there_and_back_is_the_same_model(backend: Backend, kind: str) -> None:
    layers = {"stem": Conv2d(4, 4, 1), "layer": BUILDERS[kind]()}
    model = Sequential(layers, backend=backend, seed=2, dtype="float64", input_shape=SHAPE)
    back = from_torch(to_torch(model), backend=backend, input_shape=SHAPE)
    assert str(back) == str(model)
    assert back.dtype == "float64"
    mine, theirs = model.state_dict(), back.state_dict()
    assert list(mine) == list(theirs)
    for name, a in mine.items():
        np.testing.assert_array_equal(a, theirs[name], err_msg=name)


def test_the_two_share_no_memory(backend: Backend) -> None:
    model = models.create("lenet5", in_channels=1, num_classes=3, image_size=12, backend=backend)
    before = model.state_dict()
    module = to_torch(model)
    back = from_torch(module, backend=backend)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7)
    for name, a in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], a, err_msg=name)
        np.testing.assert_array_equal(back.state_dict()[name], a, err_msg=name)


def test_torch_modules_options_are_kept(backend: Backend, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        OrderedDict(
            same=nn.Conv2d(2, 4, (3, 5), padding="same", dilation=2, bias=False),
            even=nn.Conv2d(4, 4, (4, 2), padding="same", dilation=(1, 3)),
            norm=nn.BatchNorm2d(4, eps=1e-2, momentum=None),
            act=nn.ReLU(inplace=True),
            maximum=nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            valid=nn.Conv2d(4, 6, 1, stride=(1, 2), padding="valid", groups=2),
            average=nn.AvgPool2d((2, 1), count_include_pad=False),
            adaptive=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.3),
            out=nn.Linear(24, 3),
        )
    ).double()
    x = rng.standard_normal((3, 2, 13, 11))
    module(torch.from_numpy(x))  # so that the running statistics are not the first ones
    model = from_torch(module, backend=backend)
    assert list(model.state_dict()) == list(module.state_dict())
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(1, 1, 1), "module: expected nn.Sequential or a module of one's own, got Conv2d"),
        (nn.Sequential(nn.GELU()), "module: expected one that minicnn has, got GELU"),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="reflect")),
            "Conv2d: padding_mode='reflect' is not supported",
        ),
        (
            nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)),
            "BatchNorm2d: track_running_stats=False is not supported",
        ),
        (nn.Sequential(nn.Softmax(0)), "Softmax: dim=0 is not supported"),
        (
            nn.Sequential(nn.LazyConv2d(2, 3)),
            "LazyConv2d: a lazy module that has seen no batch is not supported",
        ),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d((None, 1))),
            "AdaptiveAvgPool2d: output_size=(None, 1) is not supported",
        ),
        (nn.Sequential(nn.Flatten(2)), "Flatten: dims other than"),
        (
            nn.Sequential(nn.AvgPool2d(2, divisor_override=3)),
            "AvgPool2d: divisor_override is not supported",
        ),
        (
            nn.Sequential(nn.MaxPool2d(2, return_indices=True)),
            "MaxPool2d: return_indices is not supported",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_minicnn_has_not_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        from_torch(module, backend="numpy")
    assert str(error.value).startswith(f"[from_torch] {message}")


class OwnForward(nn.Conv2d):
    """A convolution and something more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


class OwnConvolution(nn.Conv2d):
    """Weights that are standardised before use."""

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class OwnName(nn.Conv2d):
    """A convolution under another name."""


def hooked() -> nn.Module:
    module = nn.Conv2d(1, 1, 1)
    module.register_forward_hook(lambda _module, _inputs, output: output + 1)
    return module


def patched() -> nn.Module:
    module = nn.ReLU()
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (OwnForward(1, 1, 1), "OwnForward: a forward of its own is not supported"),
        (OwnConvolution(1, 1, 1), "OwnConvolution: a forward of its own is not supported"),
        (hooked(), "Conv2d: a module with hooks is not supported"),
        (patched(), "ReLU: a forward of its own is not supported"),
    ],
    ids=["forward", "_conv_forward", "hook", "patched"],
)
def test_modules_that_do_something_else_are_refused(part: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[from_torch\] {message}$"):
        from_torch(nn.Sequential(part), backend="numpy")


def test_a_subclass_with_torchs_forward_is_taken() -> None:
    module = nn.Sequential(OwnName(1, 2, 3))
    model = from_torch(module, backend="numpy", input_shape=(1, 5, 5))
    assert str(model).count("Conv2d(1, 2, 3)") == 1


def test_a_layer_with_its_own_forward_is_refused() -> None:
    class Doubled(ReLU):
        def forward(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, object]:
            y, saved = super().forward(x, training)
            return 2 * y, saved

    with pytest.raises(ValueError, match=r"^\[to_torch\] layer: expected one of minicnn's, got Doubled$"):
        to_torch(Sequential(Doubled(), backend="numpy"))


def test_modules_at_several_places_stay_so(backend: Backend, rng: np.random.Generator) -> None:
    """A ReLU, a pool and a convolution that stand twice each: 9 places, 6 modules."""
    torch.manual_seed(1)
    act, pool, conv = nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), act, pool, conv, act, conv, pool, nn.Flatten(), nn.Linear(16, 3)
    ).double()
    model = from_torch(module, backend=backend, input_shape=(1, 8, 8))
    assert len(model.children) == 9
    assert model.children["3"] is model.children["5"]
    assert list(model.named_parameters()) == [name for name, _ in module.named_parameters()]
    back = to_torch(model)
    assert back[3] is back[5]
    x = torch.from_numpy(rng.standard_normal((3, 1, 8, 8)))
    with torch.no_grad():
        np.testing.assert_allclose(back(x), module(x), rtol=1e-12)
        np.testing.assert_allclose(model.predict(x.numpy()), module(x), rtol=1e-9, atol=1e-12)


def test_frozen_parameters_are_frozen_layers_both_ways() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    module[0].requires_grad_(False)
    model = from_torch(module, backend="numpy")
    assert [layer.requires_grad for layer in model.children.values()] == [False, True, True]
    back = to_torch(model)
    assert {name: p.requires_grad for name, p in back.named_parameters()} == {
        "0.weight": False, "0.bias": False, "2.weight": True, "2.bias": True,
    }  # fmt: skip
    module[2].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^\[from_torch\] Conv2d: requires_grad=False of some of its par"):
        from_torch(module, backend="numpy")


def test_both_sides_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check notices a convolution whose result is another, and leaves the module in its mode."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout())
    module[1].eval()
    from_torch(module, backend="numpy", input_shape=(1, 5, 5))
    assert (module.training, module[0].training, module[1].training) == (True, True, False)
    real = Conv2d.forward

    def wrong(self: Conv2d, x: np.ndarray, training: bool) -> tuple[np.ndarray, object]:
        y, saved = real(self, x, training)
        return 1.01 * y, saved

    monkeypatch.setattr(Conv2d, "forward", wrong)
    with pytest.raises(ValueError, match=r"^\[from_torch\] module: expected the results of the minicnn mo"):
        from_torch(module, backend="numpy", input_shape=(1, 5, 5))


def test_unknown_layer_is_refused() -> None:
    class Mine(Layer):
        pass

    with pytest.raises(ValueError, match=r"^\[to_torch\] layer: expected one of minicnn's, got Mine$"):
        to_torch(Sequential(Mine(), backend="numpy"))


def test_dtype_of_a_module_without_parameters() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, affine=False)).double()
    assert from_torch(module, backend="numpy").dtype == "float64"


@pytest.mark.parametrize("layer", [partial(Conv2d, 1, 1), MaxPool2d, AvgPool2d])
def test_sides_that_torch_cannot_have_are_refused(layer: Callable[..., Layer]) -> None:
    model = Sequential(layer(4, padding=(0, 1, 2, 1)), backend="numpy")
    with pytest.raises(ValueError, match=r"^\[to_torch\] padding: .*, got \(0, 1, 2, 1\)$"):
        to_torch(model)
