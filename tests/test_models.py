"""The models by name, prediction, and what a printed model shows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minicnn import models
from minicnn.backends import Backend
from minicnn.layers import Conv2d, Dense, Dropout, Flatten, Sequential

NAMES = ["lenet5", "simple_cnn", "resnet20"]
FLAT = ["lenet5", "simple_cnn"]
"""Models without blocks.  test_architectures.py has the large ones."""


def make(name: str, backend: Backend | str, **options: object) -> Sequential:
    return models.create(name, in_channels=2, num_classes=5, image_size=16, backend=backend, **options)


def test_lenet5_is_lecuns() -> None:
    model = models.create("lenet5", in_channels=1, num_classes=10, image_size=28, backend="numpy")
    shapes = {name: a.shape for name, a in model.named_parameters().items() if name.endswith("weight")}
    assert list(shapes.values()) == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    convolutions = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25
    assert model.multiply_adds((1, 28, 28)) == convolutions + 400 * 120 + 120 * 84 + 84 * 10


def test_simple_cnn_is_as_described() -> None:
    model = models.create("simple_cnn", in_channels=3, num_classes=7, image_size=32, backend="numpy")
    shapes = {name: a.shape for name, a in model.named_parameters().items() if name.endswith("weight")}
    assert list(shapes.values()) == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64 * 8 * 8), (7, 128)]
    convolutions = 32 * 32 * 32 * 27 + 16 * 16 * 64 * 288
    assert model.multiply_adds((3, 32, 32)) == convolutions + 4096 * 128 + 128 * 7


def test_resnet20_is_hes_for_cifar() -> None:
    model = models.create("resnet20", in_channels=3, num_classes=10, image_size=32, backend="numpy")
    weights = [name for name, a in model.named_parameters().items() if a.ndim > 1]
    assert len([name for name in weights if "downsample" not in name]) == 20
    first, pairs, last = 32 * 32 * 27 * 16, 32 * 32 * 9 * 16 * 16, 64 * 10
    halved = 2 * (pairs // 2)  # the first convolution of a stage has half the channels to read
    shortcuts = 2 * (16 * 16 * 16 * 32)
    assert model.multiply_adds((3, 32, 32)) == first + 16 * pairs + halved + shortcuts + last


def test_the_nets_of_the_recipes_are_as_described() -> None:
    """Each block's first convolution sees the whole map, what follows a quarter of its pixels."""
    for name, widths, others in (("fast_cnn", (32, 64, 128), 1), ("fast_resnet", (64, 128, 256), 2)):
        model = models.create(name, in_channels=1, num_classes=10, image_size=28, backend="numpy")
        channels, total = 1, widths[-1] * 10
        for width, side in zip(widths, (28, 14, 7), strict=True):
            total += 9 * width * (channels * side**2 + others * width * (side // 2) ** 2)
            channels = width
        assert model.multiply_adds((1, 28, 28)) == total
        assert f" {round(total / 1e6)} million multiply-adds" in getattr(models, name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_predictions_do_not_depend_on_the_batch_size(
    backend: Backend, name: str, rng: np.random.Generator
) -> None:
    model = make(name, backend, dtype="float64")
    x = rng.standard_normal((7, 2, 16, 16))
    logits = model.predict(x)
    assert logits.shape == (7, 5)
    for size in (1, 3, 7, 100):
        np.testing.assert_allclose(model.predict(x, batch_size=size), logits, rtol=1e-10, atol=1e-12)
    probabilities = model.predict_proba(x, batch_size=2)
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(7), rtol=1e-12)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))


@pytest.mark.parametrize("name", NAMES)
def test_prediction_of_no_image(backend: Backend, name: str) -> None:
    model = make(name, backend)
    assert model.predict(np.zeros((0, 2, 16, 16), np.float32)).shape == (0, 5)
    assert model.predict_proba(np.zeros((0, 2, 16, 16), np.float32)).shape == (0, 5)


def test_prediction_takes_other_dtypes_and_layouts(backend: Backend, rng: np.random.Generator) -> None:
    model = make("lenet5", backend)
    x = rng.integers(0, 3, (4, 2, 16, 16))
    expected = model.predict(x.astype(np.float32))
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(model.predict(x), expected)
    np.testing.assert_array_equal(model.predict(x.astype(">f8")), expected)
    mirrored = np.ascontiguousarray(x[:, :, ::-1]).astype(np.float32)[:, :, ::-1]
    np.testing.assert_array_equal(model.predict(mirrored), expected)


def test_prediction_is_evaluation(backend: Backend, rng: np.random.Generator) -> None:
    model = Sequential(Flatten(), Dropout(0.5), Dense(8, 3), backend=backend, dtype="float64")
    x = rng.standard_normal((3, 2, 2, 2))
    weight, bias = model.state_dict().values()
    np.testing.assert_allclose(model.predict(x), x.reshape(3, 8) @ weight.T + bias, rtol=1e-12)


def test_unbound_model_is_bound_to_auto_when_it_predicts(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicnn.layers.layer.get_backend", {"auto": backend}.__getitem__)
    model = Sequential(Conv2d(1, 2, 3), Flatten(), Dense(8, 3))
    assert model.predict(np.zeros((1, 1, 4, 4))).shape == (1, 3)
    assert model.backend is backend


def test_wrong_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[predict\] batch_size: expected at least 1, got 0$"):
        make("lenet5", "numpy").predict(np.zeros((1, 2, 16, 16)), batch_size=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_starts_from_the_same_values(backend: Backend, name: str) -> None:
    mine, numpy = make(name, backend, seed=8).state_dict(), make(name, "numpy", seed=8).state_dict()
    assert list(mine) == list(numpy)
    for key, a in mine.items():
        np.testing.assert_array_equal(a, numpy[key], err_msg=key)


@pytest.mark.parametrize("name", FLAT)
def test_printed_model_shows_layers_shapes_parameters_and_multiply_adds(name: str) -> None:
    model = make(name, "numpy")
    text = str(model)
    assert text == model.summary((2, 16, 16))
    lines = model.summary(fuse=False).splitlines()
    assert lines[-1] == text.splitlines()[-1]
    rows = {line.split()[0]: line for line in lines[1:-1]}
    assert list(rows) == list(dict(model.named_children()))
    shape = (2, 16, 16)
    for child, layer in model.named_children():
        adds = layer.multiply_adds(shape)
        shape = layer.output_shape(shape)
        parameters = sum(math.prod(a.shape) for a in layer.params.values())
        assert repr(layer) in rows[child]
        assert rows[child].split()[-3:] == ["x".join(map(str, shape)), f"{parameters:,}", f"{adds:,}"]
    total = sum(a.size for a in model.state_dict().values())
    assert f"{total:,} parameters" in lines[-1]
    assert f"{model.multiply_adds((2, 16, 16)):,} multiply-adds" in lines[-1]


def test_printing_a_model_draws_nothing() -> None:
    model = Sequential(Dropout(0.5), Dense(4, 3), Dropout(0.5), backend="numpy", seed=5)
    before = model.generator_state()
    assert "15 parameters" in str(model)
    assert model.generator_state() == before


def test_model_without_input_shape_prints_what_it_knows() -> None:
    text = str(Sequential(Conv2d(1, 2, 3), Dense(8, 3)))
    assert "Conv2d(1, 2, 3)" in text
    assert f"{2 * 9 + 2 + 8 * 3 + 3} parameters" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vgg99"}, r"^\[models\] name: expected one of .*lenet5.*, got vgg99$"),
        ({"in_channels": 0}, r"^\[lenet5\] in_channels: expected at least 1, got 0$"),
        ({"num_classes": 0}, r"^\[lenet5\] num_classes: expected at least 1, got 0$"),
        ({"image_size": 8}, r"^\[lenet5\] image_size: expected at least 12, got .*8.*$"),
    ],
)
def test_wrong_arguments_are_named(changes: dict, message: str) -> None:
    good = {"name": "lenet5", "in_channels": 1, "num_classes": 10, "image_size": 28, "backend": "numpy"}
    with pytest.raises(ValueError, match=message):
        models.create(**{**good, **changes})


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "vgg_small", "googlenet"])
def test_shapes_are_known_before_anything_is_drawn(name: str) -> None:
    options = {"in_channels": 3, "num_classes": 7, "image_size": 32}
    shapes = models.build(name, **options).state_shapes()
    state = models.create(name, backend="numpy", **options).state_dict()
    assert shapes.keys() == state.keys()
    for key, a in state.items():
        assert (shapes[key].shape, shapes[key].dtype) == (a.shape, a.dtype), key
        assert shapes[key].strides == (0,) * a.ndim
