"""`InferenceSession`: the same values as the model, whatever runs them, from any number of threads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS

from minicnn import InferenceSession, Trainer, models, optim
from minicnn.checkpoint import Checkpoint, CheckpointError, save
from minicnn.graph import prepared, run, session
from minicnn.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    Parallel,
    ReLU,
    ReLU6,
    Residual,
    Sequential,
    Softmax,
)
from minicnn.ops.make_batch import normalized

needs_cpp = pytest.mark.skipif("cpp" not in BACKENDS, reason="sessions of one call are the cpp backend's")


def images(count: int, channels: int = 3, side: int = 12, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, channels, side, side))
    return values.astype(np.float32)


def settled(model: Any, side: int = 12) -> Any:
    """The model with running statistics of its own in every batch norm."""
    generator = np.random.default_rng(1)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            state[name] = generator.normal(0, 0.2, value.shape).astype(np.float32)
        if name.endswith("running_var"):
            state[name] = generator.uniform(0.5, 2, value.shape).astype(np.float32)
    model.load_state_dict(state)
    model.input_shape = (3, side, side)
    return model


def every_operation(backend: str = "cpp", **options: Any) -> Sequential:
    """A net with each operation of the contract.

    It is so narrow that no convolution goes Winograd's way, which sessions take for fewer images.
    """
    body = Sequential(
        Conv2d(12, 12, 3, padding=1), ReLU(), Conv2d(12, 12, 3, padding="same"), BatchNorm2d(12)
    )
    plain = Sequential(Conv2d(12, 12, 1), ReLU(), Conv2d(12, 12, 3, padding=1))
    normed = Sequential(Conv2d(12, 12, 3, padding=1), ReLU(), BatchNorm2d(12))
    branches = Parallel(
        Sequential(Conv2d(12, 17, 1), ReLU()),
        Sequential(BatchNorm2d(12), ReLU(), Conv2d(12, 8, 3, padding=1)),
        Sequential(MaxPool2d(3, 1, 1), Conv2d(12, 9, 3, padding=2, dilation=2)),
    )
    model = Sequential(
        Conv2d(3, 12, 3, padding=1, bias=False), BatchNorm2d(12), ReLU(), MaxPool2d(2, 2, ceil_mode=True),
        Residual(body), ReLU(), Residual(plain), ReLU(), Residual(normed), Dropout(0.5), branches, ReLU(),
        BatchNorm2d(34), ReLU(), MaxPool2d(3, 1, 1),
        Conv2d(34, 34, 3, padding=1, groups=34), ReLU(), Conv2d(34, 34, 5, stride=4, padding=2, groups=34),
        Conv2d(34, 34, 3, padding=1, groups=2), ReLU6(), AvgPool2d(2, 1, 1, count_include_pad=False),
        Conv2d(34, 36, 3, padding=1), MaxPool2d(3, 2, 1), AdaptiveAvgPool2d((2, 1)), Flatten(),
        Dense(72, 10), ReLU(), Dense(10, 5, bias=False), Softmax(), backend=backend, seed=0, **options,
    )  # fmt: skip
    return settled(model)


def by_operations(model: Any, x: np.ndarray) -> np.ndarray:
    """What the model's own folded graph gives, one operation after the other."""
    graph = model.graph(training=False)
    return run.predict(graph, model.backend, x, batch_size=len(x), dtype=model.dtype)


MODELS: dict[str, Callable[[], Any]] = {
    "every operation": every_operation,
    "lenet5": lambda: models.create("lenet5", in_channels=3, num_classes=10, image_size=12, backend="cpp"),
    "resnet20": lambda: settled(
        models.create("resnet20", in_channels=3, num_classes=10, image_size=16, backend="cpp"), 16
    ),
    "a map of one channel": lambda: Sequential(Conv2d(3, 1, 3), Flatten(), Dense(100, 3), backend="cpp"),
    "rows": lambda: Sequential(Dense(12, 7), ReLU(), Dense(7, 3), backend="cpp"),
    "maps": lambda: settled(Sequential(Conv2d(3, 4, 3), ReLU(), backend="cpp")),
    "nothing": lambda: settled(Sequential(Dropout(0.5), backend="cpp")),
}


@needs_cpp
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_bits_are_those_of_the_operations(name: str, precision: str) -> None:
    model = MODELS[name]()
    made = InferenceSession(model, batch_size=3, precision=precision)
    assert "one call" in repr(made)
    model.set_precision(precision)
    side = model.input_shape[1] if model.input_shape else 12
    for count in (3, 1, 5):
        x = images(count, side=side) if name != "rows" else images(count)[:, 0, 0]
        expected = by_operations(model, x)
        assert np.isfinite(expected).all()
        y = made.run(x)
        assert y.shape == expected.shape
        if (name, precision) == ("resnet20", "float32"):  # Winograd's way is taken for fewer images
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(y, expected)


@needs_cpp
def test_large_batches_go_through_in_parts_and_empty_ones_come_out_empty() -> None:
    model = MODELS["lenet5"]()
    made, x = InferenceSession(model), images(2 * session.MOST_TOGETHER + 3)
    y = made.run(x)
    np.testing.assert_allclose(y, model.predict(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[-3:], made.run(x[-3:]))
    assert made.run(x[:0]).shape == (0, 10)
    for count in range(1, 2 * prepared.MOST_PLANS):  # more sizes than plans are kept for
        np.testing.assert_allclose(made.run(x[:count]), y[:count], rtol=1e-5, atol=1e-6)
    assert len(made._prepared._plans) == prepared.MOST_PLANS


@needs_cpp
def test_arrays_of_any_memory_order_are_taken() -> None:
    model = MODELS["lenet5"]()
    made, x = InferenceSession(model), images(3)
    expected = made.run(x)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for other in (last, x.astype(np.float64), x[::-1].copy()[::-1], x.astype(">f4"), x.tolist()):
        np.testing.assert_array_equal(made.run(other), expected)


@needs_cpp
def test_stays_as_it_is_while_the_model_trains_on() -> None:
    model = MODELS["lenet5"]()
    made, x = InferenceSession(model), images(4)
    before = made.run(x)
    Trainer(model, optim.SGD(lr=0.5)).step(x, np.array([0, 1, 2, 3]))
    assert not np.array_equal(model.predict(x), before)
    np.testing.assert_array_equal(made.run(x), before)
    np.testing.assert_array_equal(made.run(x[:2]), before[:2])  # a plan that is made only now


@needs_cpp
def test_eight_threads_get_the_same_bits_as_one() -> None:
    model = Sequential(
        Conv2d(3, 16, 3, padding=1), ReLU(), MaxPool2d(2), Conv2d(16, 16, 3), ReLU(), Flatten(),
        Dense(256, 5), backend="cpp",
    )  # fmt: skip
    made, batches = InferenceSession(model), [images(1 + i % 3, seed=i) for i in range(8)]
    alone = [InferenceSession(model).run(x).tobytes() for x in batches]

    def calls(i: int) -> set[bytes]:
        return {made.run(batches[i]).tobytes() for _ in range(1000)}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(calls, range(8))) == [{expected} for expected in alone]


@needs_cpp
def test_threads_change_no_bits() -> None:
    model = MODELS["every operation"]()
    x = images(9)
    results = {InferenceSession(model, threads=count).run(x).tobytes() for count in (1, 2, None)}
    assert len(results) == 1


@needs_cpp
def test_what_is_not_finite_comes_out_as_from_the_operations() -> None:
    model = Sequential(Conv2d(32, 32, 3, padding=1), ReLU(), backend="cpp")
    x = images(4, 32, 40)
    x[1, 3, 7, 7] = np.inf
    x[2, 0, 0, 0] = np.nan
    y, expected = InferenceSession(model).run(x), by_operations(model, x)
    assert not np.isfinite(expected).all()
    np.testing.assert_array_equal(y, expected)


@needs_cpp
def test_memory_is_stated_and_maps_share_their_places() -> None:
    model = MODELS["resnet20"]()
    made = InferenceSession(model, batch_size=4)
    shapes = model.graph(training=False).shapes((3, 16, 16))
    largest = 4 * 4 * max(int(np.prod(shape)) for shape in shapes.values())
    total = 4 * 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    assert 2 * largest <= made.memory.arena < total / 4
    weights = sum(a.nbytes for a in model.state_dict().values())
    assert weights < made.memory.weights < 12 * weights
    assert f"{made.memory.arena / 2**20:.2f} MiB of maps" in repr(made)


@needs_cpp
def test_sixteen_filters_fill_their_block_of_transformed_filters() -> None:
    model = Sequential(Conv2d(16, 16, 3, padding=1), backend="cpp")
    made = InferenceSession(model)
    made.run(np.zeros((1, 16, 32, 32), np.float32))
    assert made.memory.weights < 2 * 36 * 16 * 16 * 4


# ---- bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", sorted({"numpy", "cpp"} & set(BACKENDS)))
def test_bytes_are_normalised_in_make_batch_s_arithmetic(backend: str) -> None:
    model = settled(Sequential(Conv2d(3, 4, 3), ReLU(), Flatten(), Dense(400, 3), backend=backend))
    statistics = [0.1, 0.5, 0.7], [0.2, 0.3, 0.1]
    made = InferenceSession(model, normalization=statistics)
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 12, 12), dtype=np.uint8)
    np.testing.assert_array_equal(made.run(x), made.run(normalized(x, *statistics, np.float32)))
    with pytest.raises(ValueError, match=r"\[InferenceSession\] x: expected images \(N, C=3, H, W\)"):
        made.run(x[:, :1])
    with pytest.raises(
        ValueError, match=r"x: expected normalised images, or a session with a normalization"
    ):
        InferenceSession(model).run(x)


def test_checkpoint_brings_its_normalization(tmp_path: Path) -> None:
    model = models.create("lenet5", in_channels=1, num_classes=3, image_size=12, backend="numpy", seed=4)
    path = tmp_path / "checkpoint.safetensors"
    names = ["a", "b", "c"]
    config, sums = (
        {"model": "lenet5", "seed": 4},
        dict.fromkeys(["loss", "correct", "images", "seconds"], 0.0),
    )
    save(
        path, Checkpoint(config, names, (1, 12, 12), [0.3], [0.2], "", sums=sums, model=model.state_dict())
    )
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 12, 12), dtype=np.uint8)
    made = InferenceSession(path, backend="numpy")
    np.testing.assert_array_equal(made.run(x), model.predict(normalized(x, [0.3], [0.2], np.float32)))
    with pytest.raises(CheckpointError, match="missing"):
        InferenceSession(str(tmp_path / "missing.safetensors"))


# ---- what runs operation by operation --------------------------------------------------------------------


class Doubled(Layer):
    """A user's own layer."""

    def forward(self, x: Any, training: bool) -> tuple[Any, None]:  # noqa: ARG002
        return x + x, None


def test_numpy_float64_and_own_layers_run_operation_by_operation() -> None:
    x = images(3)
    made_of = [
        Sequential(Conv2d(3, 4, 3), ReLU(), Flatten(), Dense(400, 3), backend="numpy", dtype="float64")
    ]
    made_of.append(every_operation("numpy"))
    if "cpp" in BACKENDS:
        made_of.append(Sequential(Conv2d(3, 4, 3), Doubled(), Flatten(), Dense(400, 3), backend="cpp"))
    for model in made_of:
        made = InferenceSession(model)
        assert "operation by operation" in repr(made)
        assert made.memory.arena == 0 < made.memory.weights
        y = made.run(x)
        assert y.dtype == model.dtype
        np.testing.assert_array_equal(y, by_operations(model, x))
        assert made.run(x[:0]).shape == (0, y.shape[1])


@pytest.mark.skipif("cuda" not in BACKENDS, reason="graphs are captured on the cuda backend")
def test_on_cuda_each_shape_of_images_is_one_graph() -> None:
    model = Sequential(
        Conv2d(3, 4, 3), BatchNorm2d(4), ReLU(), Parallel(Conv2d(4, 3, 1), Conv2d(4, 2, 1)), Flatten(),
        Dense(500, 3), backend="cuda",
    )  # fmt: skip
    made, weight = InferenceSession(model), model.state_dict()["0.weight"]
    expected = {seed: by_operations(model, images(1 + seed % 2, seed=seed)) for seed in range(4)}
    model.load_state_dict(model.state_dict() | {"0.weight": weight + 1})
    for seed, logits in expected.items():
        np.testing.assert_array_equal(made.run(images(1 + seed % 2, seed=seed)), logits)
    assert made._captured is not None
    assert len([graph for graph in made._captured._of_shape.values() if graph]) == 2
    assert "one launch" in repr(made)
    with pytest.raises(ValueError, match="C=3"):
        made.run(images(1, channels=2))
    bytes_too = InferenceSession(model, normalization=([0.5] * 3, [0.2] * 3))
    x = np.full((2, 3, 12, 12), 200, np.uint8)
    np.testing.assert_array_equal(
        bytes_too.run(x), by_operations(model, normalized(x, [0.5] * 3, [0.2] * 3, np.float32))
    )


@needs_cpp
def test_another_backend_than_the_model_s() -> None:
    model = every_operation("numpy")
    before = copy.deepcopy(model.state_dict())
    made, x = InferenceSession(model, backend="cpp"), images(2)
    assert "one call" in repr(made)
    assert model.backend.name == "numpy"
    np.testing.assert_allclose(made.run(x), model.predict(x), rtol=1e-4, atol=1e-6)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())


# ---- wrong input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, r"\[InferenceSession\] batch_size: expected an integer of at least 1, got 0"),
        ({"threads": 0}, r"\[InferenceSession\] threads: expected an integer of at least 1, got 0"),
        ({"precision": "int4"}, r"precision: expected one of float32, tf32, bfloat16, got 'int4'"),
        (
            {"normalization": ([0.5], [0.0])},
            r"normalization: expected a mean and a standard deviation above",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    model = Sequential(Conv2d(3, 4, 3), ReLU(), backend="numpy")
    with pytest.raises(ValueError, match=words):
        InferenceSession(model, **options)


def test_wrong_models_and_images_are_named() -> None:
    with pytest.raises(ValueError, match="model_or_checkpoint: expected a model such as Sequential"):
        InferenceSession({"weight": 1})  # type: ignore[arg-type]
    for backend in sorted({"numpy", "cpp"} & set(BACKENDS)):
        made = InferenceSession(Sequential(Conv2d(3, 4, 3), ReLU(), backend=backend))
        with pytest.raises(ValueError, match=r"x: expected images \(N, C, H, W\), got shape \(3, 12, 12\)"):
            made.run(images(1)[0])
        for x, words in ((images(1, channels=2), "C=3"), (images(1, side=2), "H")):
            with pytest.raises(ValueError, match=words):
                made.run(x)
