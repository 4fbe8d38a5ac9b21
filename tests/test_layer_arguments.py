"""What the arguments of layers mean, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minicnn.backends import Backend
from minicnn.layers import AvgPool2d, BatchNorm2d, Conv2d, Dense, MaxPool2d, Parallel, ReLU, Sequential


def test_padding_of_a_convolution(backend: Backend, rng: np.random.Generator) -> None:
    sides = Conv2d(4, 6, 3, padding=(0, 1, 2, 3))
    assert repr(sides) == "Conv2d(4, 6, 3, padding=(0, 1, 2, 3))"
    assert repr(Conv2d(4, 6, 3, padding=(1, 2, 1, 2))) == "Conv2d(4, 6, 3, padding=(1, 2))"
    assert repr(Conv2d(4, 6, 3, padding="same")) == "Conv2d(4, 6, 3, padding=1)"
    assert Conv2d(4, 6, (4, 3), padding="same").conv.padding == (1, 1, 2, 1)
    model, plain = (Sequential(layer, backend=backend) for layer in (sides, Conv2d(4, 6, 3)))
    plain.load_state_dict(model.state_dict())
    x = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    y = model.predict(x)
    assert y.shape == (2, *sides.output_shape((4, 5, 6))) == (2, 6, 5, 8)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 2), (1, 3)))
    np.testing.assert_allclose(y, plain.predict(padded), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("layer", "outside"), [(MaxPool2d, -np.inf), (AvgPool2d, 0.0)])
def test_padding_of_a_pool(backend: Backend, rng: np.random.Generator, layer: Any, outside: float) -> None:
    pool = layer(3, stride=2, padding=(0, 1, 1, 0))
    assert repr(pool) == f"{layer.__name__}(3, stride=2, padding=(0, 1, 1, 0))"
    assert repr(layer(2, padding=(1, 1, 1, 1))) == f"{layer.__name__}(2, padding=1)"
    x = rng.standard_normal((2, 4, 6, 6)).astype(np.float32)
    y = Sequential(pool, backend=backend).predict(x)
    assert y.shape == (2, *pool.output_shape((4, 6, 6))) == (2, 4, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (1, 0)), constant_values=outside)
    expected = Sequential(layer(3, stride=2), backend=backend).predict(padded)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    with pytest.raises(
        ValueError, match=rf"^\[{layer.__name__}\] padding: expected at most half of kernel"
    ):
        layer(3, padding=(0, 0, 2, 0)).output_shape((4, 6, 6))


@pytest.mark.parametrize(
    ("layer", "arguments", "flag"),
    [
        (Conv2d, (1, 1, 1), "bias"), (Dense, (1, 1), "bias"), (BatchNorm2d, (1,), "affine"),
        (MaxPool2d, (2,), "ceil_mode"), (AvgPool2d, (2,), "ceil_mode"),
        (AvgPool2d, (2,), "count_include_pad"), (Parallel, (ReLU(),), "flat"),
    ],
)  # fmt: skip
def test_wrong_flag_is_named(layer: Any, arguments: tuple[Any, ...], flag: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^\[{layer.__name__}\] {flag}: expected True or False, got 'no'$"
    ):
        layer(*arguments, **{flag: "no"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "same", "stride": 2}, "[Conv2d] stride: expected 1 with padding='same', got (2, 2)"),
        ({"padding": "full"}, "[Conv2d] padding: expected 'same', 'valid' or integers, got 'full'"),
        (
            {"padding": (1, 1, 1, -1)},
            "[Conv2d] padding: expected two or four integers of at least 0, got (1, 1, 1, -1)",
        ),
    ],
)
def test_wrong_padding_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="Conv2d") as caught:
        Conv2d(4, 6, 3, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
