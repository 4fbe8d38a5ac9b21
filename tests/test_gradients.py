"""Central differences of layers and models, in float64; tests/test_ops.py has those of operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minicnn import models
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
from minicnn.ops.im2col import Window, col2im, im2col
from minicnn.testing import CASES, Case, Point, assert_slope, draw

LAYERS: dict[str, Callable[[], Layer]] = {
    "conv2d": lambda: Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    "dense": lambda: Sequential(Flatten(), Dense(4 * 6 * 7, 5)),
    "relu": ReLU,
    "max_pool2d": lambda: MaxPool2d(3, stride=2, padding=1),
    "avg_pool2d": lambda: AvgPool2d(2),
    "adaptive_avg_pool2d": lambda: AdaptiveAvgPool2d(2),
    "batch_norm2d": lambda: BatchNorm2d(4),
    "dropout": lambda: Dropout(0.3),
    "softmax": lambda: Sequential(Flatten(), Softmax()),
    "residual": lambda: Residual(
        Sequential(Conv2d(4, 4, 3, padding=1), BatchNorm2d(4)), activation=ReLU()
    ),
    "residual-with-shortcut": lambda: Residual(
        Sequential(Conv2d(4, 8, 3, stride=2, padding=1)), Conv2d(4, 8, 1, stride=2)
    ),
    "parallel": lambda: Parallel(
        Conv2d(4, 3, 1), Sequential(Conv2d(4, 2, 3, padding=1), ReLU()), MaxPool2d(3, stride=1, padding=1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer(backend: Backend, name: str, rng: np.random.Generator) -> None:
    model = Sequential(LAYERS[name](), backend=backend.name, dtype="float64", seed=1)
    generators = model.generator_state()
    x = rng.standard_normal((3, 4, 6, 7))
    dy = rng.standard_normal(model.forward(backend.asarray(x), True)[0].shape)

    def forward(point: Point) -> tuple[np.ndarray, object]:
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in point.items() if k != "x"}})
        model.set_generator_state(generators)
        y, saved = model.forward(backend.asarray(point["x"]), True)
        return backend.to_numpy(y), saved

    point = {"x": x, **{k: backend.to_numpy(a).copy() for k, a in model.named_parameters().items()}}
    _, saved = forward(point)
    gradients = {"x": backend.to_numpy(model.backward(backend.asarray(dy), saved)).copy()}
    gradients |= {k: backend.to_numpy(a).copy() for k, a in model.named_gradients().items()}
    assert_slope(lambda p: float(np.vdot(forward(p)[0], dy)), point, gradients, rng)


@pytest.mark.parametrize("name", ["lenet5", "simple_cnn"])
def test_model_and_loss(backend: Backend, name: str, rng: np.random.Generator) -> None:
    model = models.create(
        name, in_channels=2, num_classes=5, image_size=12, backend=backend.name, seed=3, dtype="float64"
    )
    labels = backend.asarray(rng.integers(0, 5, 3))
    state = model.state_dict()
    settings = {"label_smoothing": 0.1}

    def forward(point: Point) -> tuple[float, object, object]:
        model.load_state_dict({**state, **{k: v for k, v in point.items() if k != "x"}})
        logits, saved = model.forward(backend.asarray(point["x"]), True)
        loss, probs = backend.softmax_cross_entropy_forward(logits, labels, **settings)
        return float(backend.to_numpy(loss)), probs, saved

    point = {"x": rng.standard_normal((3, 2, 12, 12)), **{k: state[k] for k in model.named_parameters()}}
    _, probs, saved = forward(point)
    dlogits = backend.softmax_cross_entropy_backward(probs, labels, **settings)
    gradients = {"x": backend.to_numpy(model.backward(dlogits, saved)).copy()}
    gradients |= {k: backend.to_numpy(a).copy() for k, a in model.named_gradients().items()}
    assert_slope(lambda p: forward(p)[0], point, gradients, rng)


WINDOWS = [
    pytest.param(case.attrs, [int(n) for n in draw(case, np.float64).inputs["x"].shape], case, id=case.id)
    for case in CASES
    if case.op == "conv2d" and not case.id.startswith("batch")
]


@pytest.mark.parametrize(("attrs", "shape", "case"), WINDOWS)
def test_col2im_is_the_adjoint_of_im2col(
    attrs: dict, shape: list[int], case: Case, rng: np.random.Generator
) -> None:
    """<im2col(x), c> = <x, col2im(c)> for all x and c."""
    problem = draw(case, np.float64)
    output = problem.dy.shape[2:]
    kernel = problem.inputs["weight"].shape[2:]
    window = Window(kernel, attrs["stride"], attrs["padding"][:2], attrs["dilation"], output)
    x = np.moveaxis(rng.standard_normal(shape), 1, -1)
    cols = im2col(x, window, attrs["groups"])
    c = rng.standard_normal(cols.shape)
    back = col2im(c, x.shape, window)
    size = np.linalg.norm(cols) * np.linalg.norm(c)
    np.testing.assert_allclose(np.vdot(cols, c), np.vdot(x, back), rtol=0, atol=1e-13 * size)
