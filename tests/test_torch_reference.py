"""to_torch and from_torch: the same model on both sides, weights and names included."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from test_layers import BUILDERS, SHAPE
from torch import nn

from minicnn import models
from minicnn.backends import Backend
from minicnn.layers import Conv2d, Layer, Sequential
from minicnn.torch_reference import from_torch, to_torch


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
        (nn.Conv2d(1, 1, 1), "module: expected nn.Sequential, got Conv2d"),
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
        (nn.Sequential(nn.Flatten(2)), "Flatten: dims other than"),
        (
            nn.Sequential(nn.AvgPool2d(2, divisor_override=3)),
            "AvgPool2d: divisor_override is not supported",
        ),
        (
            nn.Sequential(nn.MaxPool2d(2, return_indices=True)),
            "MaxPool2d: return_indices is not supported",
        ),
        (nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), "Conv2d: padding='same' of an even span"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_minicnn_has_not_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        from_torch(module, backend="numpy")
    assert str(error.value).startswith(f"[from_torch] {message}")


def test_unknown_layer_is_refused() -> None:
    class Mine(Layer):
        pass

    with pytest.raises(ValueError, match=r"^\[to_torch\] layer: expected one of minicnn's, got Mine$"):
        to_torch(Sequential(Mine(), backend="numpy"))


def test_dtype_of_a_module_without_parameters() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, affine=False)).double()
    assert from_torch(module, backend="numpy").dtype == "float64"
