"""The pass `fold_batch_norm`: the same logits, no batch norm run, and never of old weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import every_model
import numpy as np
import pytest
import torch

from minicnn import Trainer, models, optim
from minicnn.backends import Backend
from minicnn.ema import WeightAverage
from minicnn.graph import build, fold_batch_norm, run
from minicnn.graph.fuse import runs_as
from minicnn.layers import (
    AvgPool2d,
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

SHAPE = (2, 9, 8)
MANY = 64
"""Images of this shape for which every fold of `every_place` pays."""


def every_place() -> Sequential:
    """A convolution followed by a batch norm in every kind of container and before everything."""
    return Sequential(
        {
            "stem": Sequential(Conv2d(2, 4, 3, padding=1), BatchNorm2d(4, eps=0.1), ReLU(), MaxPool2d(2)),
            "pooled": Sequential(Conv2d(4, 4, 3, padding=1, groups=2, bias=False), BatchNorm2d(4)),
            "pool": MaxPool2d(2, stride=1),
            "block": Residual(
                Sequential(
                    {"conv1": Conv2d(4, 6, 3, padding=1, bias=False), "bn1": BatchNorm2d(6),
                     "relu1": ReLU(), "conv2": Conv2d(6, 6, 1), "bn2": BatchNorm2d(6, affine=False)}
                ),
                Sequential(Conv2d(4, 6, 1, bias=False), BatchNorm2d(6)), activation=ReLU(),
            ),
            "open": Residual(Sequential(Conv2d(6, 6, 3, padding=1), BatchNorm2d(6))),
            "mixed": Parallel(Sequential(Conv2d(6, 3, 1), BatchNorm2d(3), ReLU()), Conv2d(6, 2, 1)),
            "split": Sequential(Conv2d(5, 5, 3, padding=1, dilation=1)),
            "split_norm": BatchNorm2d(5),
            "flatten": Flatten(),
            "fc": Dense(5 * 3 * 3, 3),
        },
        input_shape=SHAPE,
    )  # fmt: skip


def unlike_new(model: Sequential, rng: np.random.Generator) -> None:
    """Give every batch norm statistics and an affine map as training would leave them."""
    state = model.state_dict()
    for name, layer in model.named_layers():
        for key in [*layer.params, *layer.buffers] if isinstance(layer, BatchNorm2d) else []:
            a = state[f"{name}.{key}"]
            draw = rng.uniform(0.5, 2.0, a.shape) if key == "running_var" else rng.standard_normal(a.shape)
            state[f"{name}.{key}"] = draw if a.dtype.kind == "f" else a
    model.load_state_dict(state)


def make(
    backend: Backend, rng: np.random.Generator, build: Callable[[], Sequential] = every_place
) -> Sequential:
    model = build()
    model.bind(backend, seed=2, dtype="float64")
    unlike_new(model, rng)
    return model


def unfolded(model: Sequential, x: np.ndarray) -> np.ndarray:
    """Logits with the batch norms as operations of their own."""
    backend = model.backend
    return backend.to_numpy(model.forward(backend.asarray(x), False)[0])


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vgg11_bn", "resnet20", "every place"])
def test_logits_are_those_of_the_unfolded_model_and_of_torch(
    backend: Backend, name: str, rng: np.random.Generator
) -> None:
    size = 32 if name == "vgg11_bn" else 16
    if name != "every place" and "emulat" in backend.label:
        pytest.skip("the emulation is too slow for this: test_architectures predicts with two of them")
    if name == "vgg11_bn":
        model = make(
            backend, rng, lambda: models.vgg.vgg("vgg11", 2, 5, (size, size), batch_norm=True, hidden=8)
        )
    elif name == "every place":
        model = make(backend, rng)
    else:
        model = make(backend, rng, lambda: getattr(models, name)(2, 5, (size, size)))
    x = rng.standard_normal((3, *(SHAPE if name == "every place" else (2, size, size))))
    graph = model.graph(training=False)
    assert not [node.op for node in graph if node.op.startswith("batch_norm2d")]
    actual = run.predict(graph, backend, x, batch_size=2, dtype="float64")
    assert_same(actual, unfolded(model, x))
    with torch.no_grad():
        assert_same(actual, to_torch(model).eval()(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("name", every_model.NAMES)
def test_every_model_predicts_the_same_folded(name: str, rng: np.random.Generator) -> None:
    model, x, _ = every_model.make(name, rng)
    graph = model.graph(training=False)
    before_norms = [node for node in build(model) if node.op == "batch_norm2d"]
    assert not before_norms or len(graph) < len(build(model))
    folded = run.predict(graph, model.backend, x, batch_size=2, dtype="float64")
    assert_same(folded, model.predict(x, fuse=False))


def count(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each forward operation, and the fold, has been called."""
    calls: Counter[str] = Counter()

    def watch(name: str, operation: Callable[..., object]) -> None:
        def spy(*args: object, **kwargs: object) -> object:
            calls[name.removesuffix("_forward")] += 1
            return operation(*args, **kwargs)

        monkeypatch.setattr(backend, name, spy, raising=False)

    for name in dir(backend):
        if name.endswith("_forward") or name == "fold_batch_norm2d":
            watch(name, getattr(backend, name))
    return calls


def test_prediction_runs_no_batch_norm_and_folds_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    model = make(backend, rng)
    x = rng.standard_normal((MANY, *SHAPE))
    calls = count(backend, monkeypatch)
    model.predict(x, batch_size=MANY // 2)
    assert not [op for op in calls if op.startswith("batch_norm2d")]
    assert calls["fold_batch_norm2d"] == 8
    expected = {"conv2d_relu_max_pool2d": 2, "conv2d_relu": 4, "add_relu": 2}  # in two batches
    assert {op: calls[op] for op in expected} == expected
    assert calls["conv2d_max_pool2d"] >= 2


def test_training_runs_every_batch_norm(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Frozen ones too: folding is for predictions alone."""
    model = make(backend, rng)
    model.freeze("block", "stem")
    trainer = Trainer(model, optim.SGD(lr=0.1))
    calls = count(backend, monkeypatch)
    trainer.step(rng.standard_normal((4, *SHAPE)), rng.integers(0, 3, 4))
    assert calls["fold_batch_norm2d"] == 0
    assert calls["batch_norm2d_relu"] + calls["batch_norm2d_relu_max_pool2d"] == 3


def test_plain_model_folds_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    model = make(backend, rng)
    calls = count(backend, monkeypatch)
    model.predict(rng.standard_normal((2, *SHAPE)), fuse=False)
    assert calls["fold_batch_norm2d"] == 0
    assert calls["batch_norm2d"] == 8


# ---- predictions are always of the present weights -------------------------------------------------


def changes(model: Sequential, rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Everything that changes weights or statistics, in place or not."""
    x, y = rng.standard_normal((4, *SHAPE)), rng.integers(0, 3, 4)
    backend = model.backend
    running = model.children["split_norm"].buffers["running_mean"]

    def in_place() -> None:
        backend.scale([model.named_parameters()["stem.0.weight"]], 3.0)

    return {
        "sgd step": lambda: Trainer(model, optim.SGD(lr=0.1)).step(x, y),
        "adam step": lambda: Trainer(model, optim.Adam(lr=0.1)).step(x, y),
        "load_state_dict": lambda: unlike_new(model, rng),
        "forward pass in training": lambda: model.forward(backend.asarray(x), True),
        "weight in place": in_place,
        "statistics in place": lambda: backend.scale([running], -2.0),
    }


@pytest.mark.parametrize(
    "change",
    ["sgd step", "adam step", "load_state_dict", "forward pass in training", "weight in place",
     "statistics in place"],
)  # fmt: skip
def test_no_fold_outlives_its_weights(backend: Backend, change: str, rng: np.random.Generator) -> None:
    model = make(backend, rng)
    x = rng.standard_normal((MANY, *SHAPE))
    before = model.predict(x)
    changes(model, rng)[change]()
    after = model.predict(x)
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()
    assert_same(after, unfolded(model, x))


def test_averages_are_folded_while_they_are_applied(backend: Backend, rng: np.random.Generator) -> None:
    model = make(backend, rng)
    average = WeightAverage(model, 0.9)
    average.update()
    x = rng.standard_normal((MANY, *SHAPE))
    first = model.predict(x)
    unlike_new(model, rng)
    changed = model.predict(x)
    with average.applied():
        assert_same(model.predict(x), first)
    np.testing.assert_array_equal(model.predict(x), changed)


def test_model_stays_as_it_is(backend: Backend, rng: np.random.Generator) -> None:
    model = make(backend, rng)
    before, shown = model.state_dict(), str(model)
    model.predict(rng.standard_normal((MANY, *SHAPE)))
    after = model.state_dict()
    assert [*after] == [*before]
    for name, a in before.items():
        np.testing.assert_array_equal(after[name], a, err_msg=name)
    assert str(model) == shown


# ---- what is folded ----------------------------------------------------------------------------------


def test_printed_model_shows_what_runs_in_evaluation() -> None:
    model = every_place()
    assert "in evaluation" not in model.summary(fuse=False)
    heading, *rows = str(model).splitlines()
    assert heading.endswith("runs as                       in evaluation")
    shown = runs_as(model.graph(training=False))
    assert {shown[f"stem.{i}"] for i in range(4)} == {"conv2d_relu_max_pool2d"}
    assert {shown[name] for name in ("pooled.0", "pooled.1", "pool")} == {"conv2d_max_pool2d"}
    assert {shown[f"block.{name}"] for name in ("conv1", "bn1", "relu1")} == {"conv2d_relu"}
    assert {shown[f"block.{name}"] for name in ("conv2", "bn2", "downsample.1")} == {"conv2d"}
    assert (shown["block.relu"], shown["split.0"], shown["split_norm"]) == ("add_relu", "conv2d", "conv2d")
    assert sum(row.endswith("conv2d_relu_max_pool2d") for row in rows) == 4


@pytest.mark.parametrize(
    "layers",
    [
        (BatchNorm2d(2), Conv2d(2, 2, 1)),
        (Conv2d(2, 2, 1), ReLU(), BatchNorm2d(2)),
        (Conv2d(2, 2, 1), AvgPool2d(2), BatchNorm2d(2)),
        (Residual(Sequential(Conv2d(2, 2, 1))), BatchNorm2d(2)),
        (Parallel(Conv2d(2, 2, 1)), BatchNorm2d(2)),
    ],
    ids=["before it", "after relu", "after pool", "after residual", "after parallel"],
)
def test_batch_norm_not_right_behind_a_convolution_is_left(
    backend: Backend, layers: tuple, rng: np.random.Generator
) -> None:
    model = make(backend, rng, lambda: Sequential(*layers, Flatten()))
    plain = build(model)
    assert fold_batch_norm(plain) is plain
    assert "in evaluation" not in str(model)
    x = rng.standard_normal((2, 2, 4, 4))
    assert_same(model.predict(x), unfolded(model, x))


def test_only_the_first_of_two_batch_norms_is_folded(backend: Backend, rng: np.random.Generator) -> None:
    model = make(
        backend, rng, lambda: Sequential(Conv2d(2, 3, 1), BatchNorm2d(3), BatchNorm2d(3), Flatten())
    )
    assert [node.op for node in fold_batch_norm(build(model))] == ["conv2d", "batch_norm2d", "flatten"]
    x = rng.standard_normal((MANY, 2, 4, 4))
    assert_same(model.predict(x), unfolded(model, x))


def test_convolution_used_twice_is_folded_for_each_place(
    backend: Backend, rng: np.random.Generator
) -> None:
    shared = Conv2d(2, 2, 1)
    model = make(
        backend, rng, lambda: Sequential(shared, BatchNorm2d(2), ReLU(), shared, BatchNorm2d(2), Flatten())
    )
    x = rng.standard_normal((MANY, 2, 4, 4))
    assert [node.op for node in fold_batch_norm(build(model))] == ["conv2d", "relu", "conv2d", "flatten"]
    assert_same(model.predict(x), unfolded(model, x))


@pytest.mark.parametrize(("images", "folds"), [(1, 0), (24, 1), (48, 2)])
def test_few_images_fold_only_what_pays(
    backend: Backend, images: int, folds: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Weights of 2*4*9 = 72 and 4*4*9 = 144 values, maps of 4*4 = 16 values an image."""
    layers = [Conv2d(2, 4, 3), BatchNorm2d(4), ReLU(), Conv2d(4, 4, 3, padding=1), BatchNorm2d(4)]
    model = make(backend, rng, lambda: Sequential(*layers, Flatten()))
    x = rng.standard_normal((images, 2, 4, 4))
    calls = count(backend, monkeypatch)
    actual = model.predict(x)
    assert calls["fold_batch_norm2d"] == folds
    assert_same(actual, unfolded(model, x))


def test_images_that_do_not_fit_are_refused_in_the_operations_words(
    backend: Backend, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=r"^\[conv2d\] weight: expected C=3, got C=2$"):
        make(backend, rng).predict(np.zeros((MANY, 3, 9, 8)))


def test_no_images(backend: Backend, rng: np.random.Generator) -> None:
    assert make(backend, rng).predict(np.zeros((0, *SHAPE))).shape == (0, 3)
