"""bfloat16: how it is rounded, where, and what that does to operations, graphs and whole models.

That every operation is within half a unit of float64 arithmetic is in the table of cases (test_ops.py).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minicnn import Trainer, data, models, optim
from minicnn.backends import Array, Backend, Pool, get_backend
from minicnn.graph import run
from minicnn.graph.cast import IN_BFLOAT16, input_dtype
from minicnn.layers import Conv2d, Dense, Flatten, Layer, MaxPool2d, ReLU, Sequential, Softmax
from minicnn.testing.bfloat16 import WITHOUT, unit
from minicnn.testing.checks import FIRST_OF_EACH_OP, drawn
from minicnn.testing.operations import OPERATIONS
from minicnn.testing.oracle import run_backend

BFLOAT16 = ml_dtypes.bfloat16
CONV = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
ULP = 2.0**-7  # the distance of bfloat16 numbers from 1 to 2

ROUNDED = [
    (1 + ULP / 2, 1.0),  # half way: to the even neighbour, below
    (1 + 3 * ULP / 2, 1 + 2 * ULP),  # and above
    (1 + ULP / 2 + 2.0**-23, 1 + ULP),  # the smallest float32 step beyond half way
    (-1 - ULP / 2, -1.0),
    (float(np.float32(3.4e38)), np.inf),  # above the largest bfloat16, 3.39e38, by more than half a unit
    (float(ml_dtypes.finfo(BFLOAT16).max), float(ml_dtypes.finfo(BFLOAT16).max)),
    (2.0**-133, 2.0**-133),  # the smallest denormal bfloat16
    (2.0**-134, 0.0),  # half of it
    (3 * 2.0**-134, 2.0**-132),
    (-np.inf, -np.inf),
]


def sums_to(backend: Backend, values: np.ndarray) -> dict[str, np.ndarray]:
    """What each operation that rounds gives where its float32 result is one of these values."""
    zeros = np.zeros((1, len(values), 1, 1), BFLOAT16)
    image, bias = backend.asarray(zeros), backend.asarray(values)
    pointwise = backend.asarray(np.zeros((len(values), len(values), 1, 1), np.float32))
    rows, matrix = (backend.asarray(a) for a in (zeros[:, :, 0, 0], np.eye(len(values), dtype=np.float32)))
    ones, none = (backend.asarray(np.full(len(values), number, np.float32)) for number in (1, 0))
    found = {
        "conv2d": backend.conv2d_forward(image, pointwise, bias, **CONV),
        "dense": backend.dense_forward(rows, matrix, bias),
        "batch_norm2d": backend.batch_norm2d_forward(
            image, ones, bias, none, ones, training=False, momentum=0.1, eps=0.0
        )[0],
        "cast": backend.cast_forward(bias, dtype="bfloat16"),
    }
    return {op: backend.to_numpy(a).astype(np.float64).ravel() for op, a in found.items()}


def test_every_operation_rounds_to_nearest_even(backend: Backend) -> None:
    normal = [pair for pair in ROUNDED if abs(pair[0]) > 1e-37]
    values, expected = (np.array(column) for column in zip(*normal, strict=True))
    for op, got in sums_to(backend, values.astype(np.float32)).items():
        np.testing.assert_array_equal(got, expected, err_msg=op)


def test_a_cast_rounds_every_kind_of_number(backend: Backend) -> None:
    values = np.array([value for value, _ in ROUNDED] + [np.nan, -0.0], np.float32)
    rng = np.random.default_rng(0)
    values = np.concatenate([values, rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)])
    got = backend.to_numpy(backend.cast_forward(backend.asarray(values), dtype="bfloat16"))
    assert got.dtype == BFLOAT16
    np.testing.assert_array_equal(got.astype(np.float64)[: len(ROUNDED)], [wanted for _, wanted in ROUNDED])
    numbers = ~np.isnan(values)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(BFLOAT16)
    np.testing.assert_array_equal(np.isnan(got), ~numbers)
    np.testing.assert_array_equal(got[numbers].view(np.uint16), expected[numbers].view(np.uint16))
    back = backend.to_numpy(backend.cast_backward(backend.asarray(got), input_dtype="float32"))
    np.testing.assert_array_equal(back, got.astype(np.float32))


def test_the_weight_is_rounded_before_it_is_multiplied_and_the_bias_is_not(backend: Backend) -> None:
    weight, bias = np.float32(1 + ULP / 2 + 2.0**-20), np.float32(ULP / 4)
    x = np.array([[64]], BFLOAT16)
    given = backend.asarray(x), backend.asarray(np.full((1, 1), weight)), backend.asarray(np.full(1, bias))
    rounded = 64 * (1 + ULP)  # 64 * weight would be 64.25 + a little, which is nearer to 64.5 than to 64
    assert float(backend.to_numpy(backend.dense_forward(*given))[0, 0]) == rounded
    image, filters = backend.asarray(x.reshape(1, 1, 1, 1)), backend.asarray(np.full((1, 1, 1, 1), weight))
    assert (
        float(backend.to_numpy(backend.conv2d_forward(image, filters, given[2], **CONV)).item()) == rounded
    )
    dx, dw, db = backend.dense_backward(backend.asarray(np.array([[1 + ULP]], BFLOAT16)), *given[:2])
    assert float(backend.to_numpy(dx).item()) == 1 + 2 * ULP
    assert (backend.to_numpy(dw).item(), backend.to_numpy(db).item()) == (64 * (1 + ULP), 1 + ULP)


@pytest.mark.parametrize("terms", [257, 4096])
def test_sums_are_float32(backend: Backend, terms: int) -> None:
    """A sum in bfloat16 would stop at 256, where 1 is half a unit."""
    x = np.ones((1, terms), BFLOAT16)
    weight = np.ones((2, terms), np.float32)
    wanted = float(np.float32(terms).astype(BFLOAT16))
    y = backend.dense_forward(backend.asarray(x), backend.asarray(weight), None)
    assert backend.to_numpy(y).astype(np.float64).tolist() == [[wanted, wanted]]
    images, filters = x.reshape(1, terms, 1, 1), weight.reshape(2, terms, 1, 1)
    y = backend.conv2d_forward(backend.asarray(images), backend.asarray(filters), None, **CONV)
    assert backend.to_numpy(y).astype(np.float64).ravel().tolist() == [wanted, wanted]
    pixels = backend.asarray(np.ones((terms, 1, 1, 1), BFLOAT16))
    _, dw, db = backend.conv2d_backward(pixels, pixels, backend.asarray(filters[:1, :1]), **CONV)
    assert (backend.to_numpy(dw).item(), backend.to_numpy(db).item()) == (terms, terms)
    mean = backend.avg_pool2d_forward(
        backend.asarray(np.ones((1, 1, terms, 1), BFLOAT16)), kernel_size=(terms, 1), stride=(1, 1),
        padding=(0, 0), ceil_mode=False, count_include_pad=True,
    )  # fmt: skip
    assert float(backend.to_numpy(mean).item()) == 1


def test_overlapping_windows_add_gradients_in_float32(backend: Backend) -> None:
    """Nine gradients of one winner: 1, and eight of a third of a unit, lost where each sum is rounded."""
    x = np.zeros((1, 1, 5, 5), BFLOAT16)
    x[0, 0, 2, 2] = 1
    dy = np.full((1, 1, 3, 3), ULP / 3, np.float32).astype(BFLOAT16)
    dy[0, 0, 0, 0] = 1
    pool = Pool((3, 3), (1, 1), (0, 0), (1, 1), False)._asdict()
    _, argmax = backend.max_pool2d_forward(backend.asarray(x), **pool)
    dx = backend.max_pool2d_backward(backend.asarray(dy), argmax, input_shape=x.shape, **pool)
    wanted = np.float32(dy.astype(np.float64).sum()).astype(BFLOAT16)
    assert float(wanted) > 1 + 2 * ULP
    assert backend.to_numpy(dx)[0, 0, 2, 2] == wanted


def test_a_batch_in_several_chunks_is_one_batch(backend: Backend) -> None:
    """Where operands are widened, as in every depthwise layer, 5 images of 16 MB go two at a time."""
    if backend.name != "cpp":
        pytest.skip("cpp alone cuts a batch")
    rng = np.random.default_rng(7)
    x = rng.integers(-1, 2, (5, 2, 1500, 700)).astype(BFLOAT16)
    dy = (rng.random((5, 2, 1500, 700)) < 0.001).astype(BFLOAT16)
    weight = rng.integers(-2, 3, (2, 1, 3, 1)).astype(np.float32)
    conv = CONV | {"padding": (1, 0), "groups": 2}
    arrays = [backend.asarray(a) for a in (dy, x, weight)]
    dx, dw, db = (backend.to_numpy(a).astype(np.float64) for a in backend.conv2d_backward(*arrays, **conv))
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (0, 0)))
    given = dy.astype(np.float64)
    wanted = [(padded[:, :, u : u + 1500] * given).sum((0, 2, 3)) for u in range(3)]
    np.testing.assert_array_equal(dw[:, 0, :, 0].T, wanted)
    np.testing.assert_array_equal(db, given.sum((0, 2, 3)))
    for image in (0, 4):
        alone = [backend.asarray(a[image : image + 1]) for a in (dy, x)]
        of_one = backend.conv2d_backward(*alone, arrays[2], **conv, need_dw=False, need_db=False)[0]
        np.testing.assert_array_equal(backend.to_numpy(of_one)[0].astype(np.float64), dx[image])


def test_denormals_are_kept_where_values_are_only_selected(backend: Backend) -> None:
    tiny = np.array([1, 3, 2, 0], np.uint16).view(BFLOAT16).reshape(1, 1, 2, 2)
    x = backend.asarray(tiny)
    pool = Pool((2, 2), (2, 2), (0, 0), (1, 1), False)._asdict()
    y, _ = backend.max_pool2d_forward(x, **pool)
    found = {
        "relu": (backend.relu_forward(x), tiny),
        "max_pool2d": (y, tiny.max(keepdims=True)),
        "concat": (backend.concat_forward([x, x]), np.concatenate([tiny, tiny], 1)),
        "flatten": (backend.flatten_forward(x), tiny.reshape(1, 4)),
    }
    for op, (got, wanted) in found.items():
        assert backend.to_numpy(got).tobytes() == wanted.tobytes(), op


@pytest.mark.parametrize("op", ["conv2d", "dense", "batch_norm2d", "avg_pool2d", "add", "dropout"])
def test_torch_in_bfloat16_is_a_unit_away_at_most(backend: Backend, op: str) -> None:
    """Both are within half a unit of the exact result, and torch's sums are float32, too."""
    torch = pytest.importorskip("torch")
    problem = drawn(FIRST_OF_EACH_OP[op], "bfloat16")
    products = op in ("conv2d", "dense")  # torch multiplies bfloat16 with bfloat16 alone

    def tensor(a: np.ndarray | None) -> Any:
        if a is None or a.dtype.kind in "ib":
            return None if a is None else torch.from_numpy(a.copy())
        found = torch.from_numpy(a.astype(np.float32))
        return found.bfloat16() if products or a.dtype == BFLOAT16 else found

    inputs = {name: tensor(a) for name, a in problem.inputs.items()}
    theirs = OPERATIONS[op].torch(torch, inputs, problem.case.attrs)["y"].float().numpy()
    ours = run_backend(backend, problem).outputs["y"].astype(np.float32)
    allowed = unit(np.maximum(np.abs(theirs), np.abs(ours)))
    if products:  # torch rounds the bias
        allowed += 0.5 * unit(problem.inputs["bias"].max())
    assert (np.abs(ours - theirs) <= allowed).all()


@pytest.mark.parametrize("op", ["max_pool2d", "relu", "flatten", "concat"])
def test_torch_in_bfloat16_selects_the_same(backend: Backend, op: str) -> None:
    torch = pytest.importorskip("torch")
    problem = drawn(FIRST_OF_EACH_OP[op], "bfloat16")
    inputs = {n: torch.from_numpy(a.astype(np.float32)).bfloat16() for n, a in problem.inputs.items()}
    theirs = OPERATIONS[op].torch(torch, inputs, problem.case.attrs)["y"].float().numpy()
    np.testing.assert_array_equal(run_backend(backend, problem).outputs["y"].astype(np.float32), theirs)


# ---- graphs ------------------------------------------------------------------------------------------


class Seen(Layer):
    """A layer of a user's own, which notes the dtypes of what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[str] = []

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        self.dtypes.append(str(x.dtype).removeprefix("torch."))
        return x, training

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:  # noqa: ARG002
        self.dtypes.append(str(dy.dtype).removeprefix("torch."))
        return dy


def test_casts_stand_at_the_ends_and_around_layers_of_ones_own() -> None:
    own = Seen()
    first, last = {"a": Conv2d(1, 2, 3), "b": ReLU()}, {"c": Flatten(), "d": Dense(32, 3), "e": Softmax()}
    net = Sequential({**first, "own": own, **last}, backend="numpy", precision="bfloat16")
    assert str(net.graph(training=True)) == "\n".join([
            "v7 = cast(v0)               to bfloat16",
            "v2 = conv2d_relu(v7)  a, b  Conv2d(1, 2, 3), ReLU()",
            "v8 = cast(v2)               to float32",
            "v3 = Seen(v8)         own   Seen()",
            "v9 = cast(v3)               to bfloat16",
            "v4 = flatten(v9)      c     Flatten()",
            "v5 = dense(v4)        d     Dense(32, 3)",
            "v10 = cast(v5)              to float32",
            "v6 = softmax(v10)     e     Softmax()",
            "return v6",
        ])  # fmt: skip
    y, saved = net.forward(np.ones((2, 1, 6, 6), np.float32), True)
    assert y.dtype == np.float32
    assert net.backward(np.ones_like(y), saved).dtype == np.float32  # type: ignore[union-attr]
    assert own.dtypes == ["float32", "float32"]
    assert net.children["a"].grads["weight"].dtype == np.float32
    net.set_precision("float32")
    assert "cast" not in str(net.graph(training=True)) + str(net.graph(training=False))


def test_the_operations_that_take_bfloat16_are_all_but_a_few() -> None:
    assert IN_BFLOAT16 | {*WITHOUT, "cast"} == OPERATIONS.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "half"}, "expected one of float32, tf32, bfloat16, got 'half'"),
        ({"precision": "bfloat16", "dtype": "float64"}, "expected float32 with dtype float64, which"),
        ({"precision": "tf32"}, "expected float32 or bfloat16 on numpy, as cuda alone has tf32, got tf32"),
    ],
)
def test_a_precision_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[Sequential\] precision: {message}"):
        models.create("lenet5", in_channels=1, num_classes=3, image_size=12, backend="numpy", **options)


# ---- whole models ------------------------------------------------------------------------------------


def trained(name: str, backend: str, precision: str, steps: int = 4) -> tuple[Sequential, list[float]]:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((6, 3, 12, 12)).astype("float32"), np.arange(6) % 3
    model = models.create(
        name, in_channels=3, num_classes=3, image_size=12, backend=backend, precision=precision
    )
    trainer = Trainer(model, optim.SGD(lr=0.02, momentum=0.9))
    return model, [trainer.step(x, y) for _ in range(steps)]


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_a_model_learns_much_as_in_float32_and_keeps_float32_weights(backend: Backend, name: str) -> None:
    if backend.name == "cuda":
        pytest.skip("takes long where it is emulated; the comparison with numpy says the same")
    model, losses = trained(name, backend.name, "bfloat16")
    _, exact = trained(name, backend.name, "float32")
    np.testing.assert_allclose(losses, exact, rtol=0.06)
    assert losses != exact
    state = model.state_dict()
    assert {a.dtype for a in state.values()} <= {np.dtype("float32"), np.dtype("int64")}
    assert model.predict(np.zeros((2, 3, 12, 12), "float32")).dtype == np.float32
    assert any((a.astype(BFLOAT16).astype(a.dtype) != a).any() for a in state.values())  # none is rounded


def test_backends_agree_in_bfloat16(backend: Backend) -> None:
    steps = 1 if backend.name == "cuda" else 4  # which takes long where it is emulated
    model, losses = trained("lenet5", backend.name, "bfloat16", steps)
    reference, expected = trained("lenet5", "numpy", "bfloat16", steps)
    np.testing.assert_allclose(losses, expected, rtol=5e-3)
    x = np.random.default_rng(6).standard_normal((4, 3, 12, 12)).astype("float32")
    np.testing.assert_allclose(model.predict(x), reference.predict(x), atol=0.02)
    again, same = trained("lenet5", backend.name, "bfloat16", steps)
    assert losses == same
    assert model.predict(x).tobytes() == again.predict(x).tobytes()


def test_half_the_memory_of_what_is_kept_for_backward() -> None:
    backend = get_backend("numpy")
    layers = Conv2d(1, 4, 3), ReLU(), MaxPool2d(2), Flatten(), Dense(36, 3)
    kept = {}
    for precision in ("float32", "bfloat16"):
        net = Sequential(*layers, backend=backend, precision=precision)
        _, saved = net.forward(np.ones((2, 1, 8, 8), np.float32), True)
        kept[precision] = [a.nbytes for a in saved if isinstance(a, np.ndarray)]  # type: ignore[union-attr]
    assert [2 * size for size in kept["bfloat16"]] == kept["float32"]
    assert len(kept["float32"]) >= 3


def test_a_model_that_is_bound_later_keeps_its_precision() -> None:
    net = Sequential(Flatten(), Dense(4, 2), precision="bfloat16")
    net.bind("numpy")
    assert net.precision == "bfloat16"
    assert "cast" in net.graph(training=True).ops
    net.bind("numpy", precision="float32")
    assert "cast" not in net.graph(training=True).ops
    with pytest.raises(ValueError, match="precision: expected one of float32, tf32, bfloat16, got 'half'"):
        Sequential(Dense(4, 2), precision="half")


def test_batches_are_made_in_bfloat16_where_the_net_rounds_its_input() -> None:
    """The same bits, without a cast: a training step of a mixed batch, and its labels."""
    net = models.create(
        "lenet5", in_channels=1, num_classes=10, image_size=28, backend="numpy", precision="bfloat16"
    )
    graph = net.graph(training=True)
    assert input_dtype(graph, net.dtype) == "bfloat16"
    own = Sequential({"own": Seen(), "net": net}, backend="numpy", precision="bfloat16")
    assert input_dtype(own.graph(training=True), net.dtype) == "float32"
    dataset = data.load(data.SAMPLE, limit_train=8, limit_test=1)

    def batch(dtype: str) -> tuple[np.ndarray, np.ndarray]:
        batches = data.Batches(
            dataset.train, 8, mean=dataset.mean, std=dataset.std, dtype=dtype, num_classes=10,
            augment=data.Augment(flip=True, mixup=0.5),
        )  # fmt: skip
        return next(batches.epoch(0))

    (half, half_labels), (whole, labels) = batch("bfloat16"), batch("float32")
    assert half.dtype == BFLOAT16
    assert half_labels.dtype == np.float32
    np.testing.assert_array_equal(half_labels, labels)
    logits = [run.forward(graph, net.backend, x, False)[0] for x in (half, whole)]
    np.testing.assert_array_equal(*logits)
