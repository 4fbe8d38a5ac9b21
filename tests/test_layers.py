"""Layers and containers: what they save, their names, first values, state and randomness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from minicnn import init
from minicnn.backends import Backend
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
    Residual,
    Sequential,
    Softmax,
)

# torch warns that it copies the image where the sides of padding="same" differ
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")

BUILDERS: dict[str, Callable[[], Layer]] = {
    "conv2d": lambda: Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    "conv2d-same": lambda: Conv2d(4, 6, (4, 2), padding="same", dilation=(1, 3)),
    "conv2d-valid": lambda: Conv2d(4, 6, 3, padding="valid"),
    "conv2d-no-bias": lambda: Conv2d(4, 3, (1, 3), dilation=(1, 2), bias=False),
    "dense": lambda: Sequential(Flatten(), Dense(4 * 6 * 8, 5)),
    "dense-no-bias": lambda: Sequential(Flatten(), Dense(4 * 6 * 8, 5, bias=False)),
    "relu": ReLU,
    "max_pool2d": lambda: MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    "avg_pool2d": lambda: AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda: AdaptiveAvgPool2d((4, 3)),
    "batch_norm2d": lambda: BatchNorm2d(4, eps=1e-3, momentum=0.2),
    "batch_norm2d-not-affine": lambda: BatchNorm2d(4, affine=False),
    "batch_norm2d-average-of-all": lambda: BatchNorm2d(4, momentum=None),
    "dropout-of-nothing": lambda: Dropout(0.0),
    "dropout": lambda: Dropout(0.4),
    "flatten": Flatten,
    "softmax": lambda: Sequential(Flatten(), Softmax()),
    "residual": lambda: Residual(
        Sequential({"conv1": Conv2d(4, 4, 3, padding=1), "bn1": BatchNorm2d(4)}), activation=ReLU()
    ),
    "residual-shortcut": lambda: Residual(
        Sequential({"conv1": Conv2d(4, 8, 3, stride=2, padding=1)}),
        Sequential(Conv2d(4, 8, 1, stride=2), BatchNorm2d(8)),
    ),
    "parallel": lambda: Parallel(
        {"branch1": Conv2d(4, 3, 1), "branch2": Sequential(Conv2d(4, 2, 3, padding=1), ReLU())}
    ),
}  # fmt: skip

SHAPE = (4, 6, 8)


def bound(name: str, backend: Backend, dtype: str = "float64") -> Sequential:
    return Sequential({"layer": BUILDERS[name]()}, backend=backend, dtype=dtype, seed=5)


@pytest.fixture(params=BUILDERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# ---- forward and backward ----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_equals_the_torch_module(
    backend: Backend, kind: str, training: bool, rng: np.random.Generator
) -> None:
    from minicnn.torch_reference import to_torch

    if kind == "dropout" and training:
        pytest.skip("torch draws another mask; test_dropout_drops_and_scales looks at ours")
    model = bound(kind, backend)
    module = to_torch(model).train(training)
    for _ in range(2):  # the second batch meets moved running statistics
        x = rng.standard_normal((3, *SHAPE))
        t = torch.tensor(x, requires_grad=True)
        expected = module(t)
        y, saved = model.forward(backend.asarray(x), training)
        np.testing.assert_allclose(backend.to_numpy(y), expected.detach(), rtol=1e-11, atol=1e-12)
        if not training:
            assert saved is None
            continue
        dy = rng.standard_normal(expected.shape)
        module.zero_grad()
        expected.backward(torch.from_numpy(dy))
        dx = model.backward(backend.asarray(dy), saved)
        np.testing.assert_allclose(backend.to_numpy(dx), t.grad, rtol=1e-10, atol=1e-12)
        gradients = model.named_gradients()
        assert gradients.keys() == dict(module.named_parameters()).keys()
        for name, parameter in module.named_parameters():
            np.testing.assert_allclose(
                backend.to_numpy(gradients[name]), parameter.grad, rtol=1e-10, atol=1e-11, err_msg=name
            )
    assert list(model.state_dict()) == list(module.state_dict())
    for name, a in module.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], a, rtol=1e-12, atol=1e-14, err_msg=name)


def test_gradient_of_x_only_when_needed(backend: Backend, kind: str, rng: np.random.Generator) -> None:
    model = bound(kind, backend, "float32")
    state, generators = model.state_dict(), model.generator_state()
    x = backend.asarray(rng.standard_normal((3, *SHAPE)).astype("float32"))
    found = []
    for need_dx in (True, False):
        model.load_state_dict(state)
        model.set_generator_state(generators)
        y, saved = model.forward(x, True)
        dy = backend.asarray(np.ones(tuple(y.shape), np.float32))
        dx = model.backward(dy, saved, need_dx=need_dx)
        assert (dx is not None) == need_dx
        found.append({name: backend.to_numpy(a).copy() for name, a in model.named_gradients().items()})
    assert found[0].keys() == model.named_parameters().keys()
    for name, a in found[0].items():
        np.testing.assert_array_equal(a, found[1][name], err_msg=name)


def test_backward_overwrites_gradients_and_drops_what_was_saved(
    backend: Backend, rng: np.random.Generator
) -> None:
    model = Sequential(Conv2d(4, 3, 3), ReLU(), Flatten(), Dense(72, 2), backend=backend, dtype="float64")
    x = backend.asarray(rng.standard_normal((2, *SHAPE)))
    dy = backend.asarray(rng.standard_normal((2, 2)))
    gradients = []
    for _ in range(2):
        _, saved = model.forward(x, True)
        model.backward(dy, saved)
        assert saved == []
        gradients.append({name: backend.to_numpy(a).copy() for name, a in model.named_gradients().items()})
    for name, a in gradients[0].items():
        np.testing.assert_array_equal(a, gradients[1][name], err_msg=name)


def test_output_shape_is_the_forwards(backend: Backend, kind: str) -> None:
    model = bound(kind, backend)
    y, _ = model.forward(backend.asarray(np.zeros((2, *SHAPE))), False)
    assert (2, *model.output_shape(SHAPE)) == tuple(y.shape)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 6, 8), 6 * 3 * 4 * (2 * 3 * 3)),
        (Conv2d(3, 5, (1, 3)), (3, 4, 7), 5 * 4 * 5 * (3 * 1 * 3)),
        (Dense(7, 5), (7,), 7 * 5),
        (ReLU(), (4, 6, 8), 0),
        (Residual(Sequential(Conv2d(2, 2, 1)), Conv2d(2, 2, 1)), (2, 3, 3), 2 * (2 * 9 * 2)),
        (Parallel(Conv2d(2, 3, 1), Conv2d(2, 4, 1)), (2, 3, 3), (3 + 4) * 9 * 2),
        (Sequential(Conv2d(1, 2, 3), Flatten(), Dense(8, 3)), (1, 4, 4), 2 * 4 * 9 + 24),
    ],
    ids=repr,
)
def test_multiply_adds(layer: Layer, shape: tuple[int, ...], expected: int) -> None:
    assert layer.multiply_adds(shape) == expected


# ---- names -----------------------------------------------------------------------------------------------


def test_residual_and_parallel_add_no_key_of_their_own(backend: Backend) -> None:
    model = Sequential(
        {
            "stem": Conv2d(3, 4, 1),
            "layer1": Sequential(
                Residual(
                    Sequential({"conv1": Conv2d(4, 4, 1, bias=False), "bn1": BatchNorm2d(4)}),
                    Sequential(Conv2d(4, 4, 1, bias=False), BatchNorm2d(4)),
                    activation=ReLU(),
                )
            ),
            "inception": Parallel({"branch1": Conv2d(4, 2, 1), "branch2": Sequential(Conv2d(4, 2, 1))}),
        },
        backend=backend,
    )
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert list(model.state_dict()) == [
        "stem.weight",
        "stem.bias",
        "layer1.0.conv1.weight",
        *(f"layer1.0.bn1.{name}" for name in norm),
        "layer1.0.downsample.0.weight",
        *(f"layer1.0.downsample.1.{name}" for name in norm),
        "inception.branch1.weight",
        "inception.branch1.bias",
        "inception.branch2.0.weight",
        "inception.branch2.0.bias",
    ]
    assert model.named_parameters().keys() | model.named_buffers().keys() == model.state_dict().keys()
    assert not model.named_parameters().keys() & model.named_buffers().keys()


# ---- first values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [(Conv2d(32, 64, 3), 288), (Conv2d(32, 64, 3, groups=4), 72), (Dense(300, 400), 300)],
    ids=["conv2d", "grouped", "dense"],
)
def test_first_values_are_torchs_default(layer: Layer, fan_in: int) -> None:
    model = Sequential(layer, backend="numpy", dtype="float64")
    edge = 1 / np.sqrt(fan_in)
    weight, bias = model.state_dict()["0.weight"], model.state_dict()["0.bias"]
    for a in (weight, bias):
        assert np.abs(a).max() <= edge
    assert np.abs(weight).max() > 0.999 * edge
    np.testing.assert_allclose(weight.std(), edge / np.sqrt(3), rtol=0.02)
    assert abs(weight.mean()) < 4 * weight.std() / np.sqrt(weight.size)


@pytest.mark.parametrize("shape", [(40, 30, 3, 5), (400, 300)])
def test_initialisers_have_torchs_spread(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    assert init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    torch.manual_seed(0)
    pairs = [
        (init.kaiming_uniform(rng, shape), torch.nn.init.kaiming_uniform_(torch.empty(shape))),
        (init.kaiming_normal(rng, shape), torch.nn.init.kaiming_normal_(torch.empty(shape))),
        (
            init.kaiming_normal(rng, shape, mode="fan_out"),
            torch.nn.init.kaiming_normal_(torch.empty(shape), mode="fan_out"),
        ),
        (init.xavier_uniform(rng, shape), torch.nn.init.xavier_uniform_(torch.empty(shape))),
        (init.xavier_normal(rng, shape, gain=2.0), torch.nn.init.xavier_normal_(torch.empty(shape), 2.0)),
    ]
    for mine, theirs in pairs:
        assert mine.shape == shape
        np.testing.assert_allclose(mine.std(), theirs.std(), rtol=0.03)
    for mine, theirs in (pairs[0], pairs[3]):
        np.testing.assert_allclose(np.abs(mine).max(), np.abs(theirs.numpy()).max(), rtol=1e-3)


def test_parameters_are_seeded_by_their_own_names(backend: Backend) -> None:
    def make(extra: dict[str, Layer], seed: int = 3) -> dict[str, np.ndarray]:
        layers = {"first": Conv2d(1, 4, 3), **extra, "last": Conv2d(4, 4, 3)}
        return Sequential(layers, backend=backend, seed=seed).state_dict()

    plain, longer = make({}), make({"middle": Sequential(Conv2d(4, 4, 1), Dropout())})
    for name, a in plain.items():
        np.testing.assert_array_equal(a, longer[name], err_msg=name)
    other = make({}, seed=4)
    assert all((plain[name] != other[name]).any() for name in plain)
    twins = Sequential({"a": Conv2d(4, 4, 3), "b": Conv2d(4, 4, 3)}, backend=backend).state_dict()
    assert (twins["a.weight"] != twins["b.weight"]).any()


def test_float32_starts_from_the_rounded_float64(backend: Backend) -> None:
    single, double = (bound("parallel", backend, dtype).state_dict() for dtype in ("float32", "float64"))
    for name, a in single.items():
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, double[name].astype(np.float32), err_msg=name)


# ---- state -----------------------------------------------------------------------------------------


def test_state_dict_copies_both_ways(backend: Backend, rng: np.random.Generator) -> None:
    model = bound("residual-shortcut", backend)
    state = model.state_dict()
    kept = {name: a.copy() for name, a in state.items()}
    x = backend.asarray(rng.standard_normal((2, *SHAPE)))
    model.forward(x, True)  # moves the running statistics in place
    for name, a in kept.items():
        np.testing.assert_array_equal(state[name], a, err_msg=name)
    model.load_state_dict(state)
    model.forward(x, True)
    for name, a in kept.items():
        np.testing.assert_array_equal(state[name], a, err_msg=name)
    state["layer.conv1.weight"][:] = 0
    assert (model.state_dict()["layer.conv1.weight"] != 0).all()


def test_state_that_does_not_fit_changes_nothing(backend: Backend) -> None:
    model = bound("residual", backend)
    before = model.state_dict()
    good = {name: a + 1 for name, a in before.items()}
    missing = {name: a for name, a in good.items() if name != "layer.bn1.bias"}
    wrongs = {
        "does not fit the model: it has no layer.bn1.bias$": missing,
        "does not fit the model: it has extra, which the model has not$": {**good, "extra": np.zeros(1)},
        r"layer.bn1.bias: expected shape \(4,\), got \(5,\)$": {**good, "layer.bn1.bias": np.zeros(5)},
    }
    for message, state in wrongs.items():
        with pytest.raises(ValueError, match=message):
            model.load_state_dict(state)
        for name, a in model.state_dict().items():
            np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_torchs_state_dict_loads(backend: Backend, rng: np.random.Generator) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3), torch.nn.BatchNorm2d(3)).double()
    module(torch.from_numpy(rng.standard_normal((2, *SHAPE))))
    model = Sequential(Conv2d(4, 3, 3), BatchNorm2d(3), backend=backend, dtype="float64")
    model.load_state_dict(module.state_dict())
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, module.state_dict()[name], err_msg=name)
    assert model.state_dict()["1.num_batches_tracked"] == 1


# ---- randomness ------------------------------------------------------------------------------------


def test_dropout_drops_and_scales(backend: Backend) -> None:
    model = Sequential(Dropout(0.25), backend=backend, seed=1)
    x = backend.asarray(np.ones((40, 3, 10, 10), np.float32))
    y, saved = model.forward(x, True)
    y = backend.to_numpy(y)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    share = (y == 0).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / y.size)
    np.testing.assert_array_equal(backend.to_numpy(model.backward(x, saved)), y)
    np.testing.assert_array_equal(backend.to_numpy(model.forward(x, False)[0]), np.ones(y.shape))


def test_dropout_is_seeded_and_can_be_resumed(backend: Backend) -> None:
    x = backend.asarray(np.ones((4, 3, 5, 5), np.float32))

    def draw(model: Sequential) -> np.ndarray:
        return backend.to_numpy(model.forward(x, True)[0]).copy()

    layers = {"a": Dropout(), "b": Dropout()}
    model = Sequential(layers, backend=backend, seed=2)
    first = draw(model)
    state = model.generator_state()
    assert state.keys() == {"a", "b"}
    second = draw(model)
    assert (first != second).any()
    model.set_generator_state(state)
    np.testing.assert_array_equal(draw(model), second)
    again = Sequential({"a": Dropout(), "b": Dropout()}, backend="numpy", seed=2)
    np.testing.assert_array_equal(again.forward(np.ones((4, 3, 5, 5), np.float32), True)[0], first)
    with pytest.raises(ValueError, match="set_generator_state"):
        model.set_generator_state({"a": state["a"]})


# ---- wrong arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential(3), r"^\[Sequential\] 0: expected a Layer, got int$"),
        (lambda: Conv2d(3, 4, 3, groups=2), r"^\[Conv2d\] groups: expected a divisor of .*, got 2$"),
        (lambda: Dropout(1.5), r"^\[Dropout\] p: expected a number from 0 to 1, got 1.5$"),
        (lambda: Parallel(), r"^\[Parallel\] branches: expected at least 1 layer, got 0$"),
        (
            lambda: Sequential(Conv2d(3, 4, 3), input_shape=(1, 8, 8)),
            r"^\[Conv2d\] input_shape: expected \(C=3, H, W\), got \(1, 8, 8\)$",
        ),
        (
            lambda: Sequential(Flatten(), Dense(10, 2), input_shape=(1, 3, 3)),
            r"^\[Dense\] input_shape: expected \(10,\), got \(9,\)$",
        ),
        (
            lambda: Sequential(MaxPool2d(4), input_shape=(1, 3, 3)),
            r"^\[MaxPool2d\] x: expected H of at least 4, got H=3$",
        ),
        *(
            (
                lambda pool=pool: Sequential(Flatten(), pool, input_shape=(1, 4, 4)),
                rf"^\[{type(pool).__name__}\] input_shape: expected \(C, H, W\), got \(16,\)$",
            )
            for pool in (MaxPool2d(2), AvgPool2d(2), AdaptiveAvgPool2d(1))
        ),
        *(
            (lambda size=size: MaxPool2d(size), r"^\[pair\] value: expected an integer or two, got ")
            for size in (2.0, (1.5, 2), (1, 2, 3), "2")
        ),
        (
            lambda: Parallel(*(Sequential({"c": ReLU()}) for _ in range(2)), flat=True),
            r"^\[Parallel\] branches: expected names of layers that differ, as flat asks for, got \['c'\]$",
        ),
        (
            lambda: Residual(Sequential(Conv2d(2, 3, 1))).output_shape((2, 4, 4)),
            r"^\[Residual\] shortcut: expected output shape \(3, 4, 4\) as the body's, got \(2, 4, 4\)$",
        ),
        (
            lambda: Parallel(Conv2d(2, 3, 1), Conv2d(2, 3, 3)).output_shape((2, 4, 4)),
            r"^\[Parallel\] branches: expected outputs of one H and W, got .*$",
        ),
        (
            lambda: Sequential(ReLU(), backend="numpy", dtype="float16"),
            r"dtype: expected float32 or float64, got float16$",
        ),
    ],
)  # fmt: skip
def test_wrong_model_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
