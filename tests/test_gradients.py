"""The second oracle: central differences along random directions, in float64.

For L(x) = <f(x), dy> and a direction d, (L(x + h*d) - L(x - h*d)) / 2h must be <gradient, d>.  One
direction touches every input and every parameter at once.  Inputs lie away from kinks.
"""

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
from minicnn.testing import CASES, OPERATIONS, Case, draw, run_backend
from minicnn.testing.oracle import to_backend

STEP = 1e-6
ALLOWED = 1e-7
Arrays = dict[str, np.ndarray]


def check(
    loss: Callable[[Arrays], float], point: Arrays, gradients: Arrays, rng: np.random.Generator
) -> None:
    """Compare the slope of ``loss`` at ``point`` along a random direction with the gradients' word."""
    scale = max(1.0, *(np.abs(a).max(initial=0) for a in point.values()))
    direction = {name: scale * rng.standard_normal(a.shape) for name, a in point.items()}
    ahead = loss({name: a + STEP * direction[name] for name, a in point.items()})
    behind = loss({name: a - STEP * direction[name] for name, a in point.items()})
    parts = [np.vdot(gradients[name], direction[name]) for name in point]
    # the parts may cancel; they are what rounding is relative to
    size = max(np.abs(parts).max(initial=0), 1e-3 * scale)
    np.testing.assert_allclose((ahead - behind) / (2 * STEP), sum(parts), rtol=0, atol=ALLOWED * size)


DIFFERENTIABLE = [case for case in CASES if not case.exact and hasattr(Backend, f"{case.op}_backward")]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_operation(backend: Backend, case: Case, rng: np.random.Generator) -> None:
    problem = draw(case, np.float64)
    gradients = run_backend(backend, problem).gradients
    gradients = {name: a for name, a in gradients.items() if problem.inputs[name] is not None}

    def loss(point: Arrays) -> float:
        arrays = to_backend(backend, {**problem.inputs, **point})
        outputs, _ = OPERATIONS[case.op].run(backend, arrays, case.attrs)
        return float(np.vdot(backend.to_numpy(next(iter(outputs.values()))), problem.dy))

    check(loss, {name: problem.inputs[name] for name in gradients}, gradients, rng)


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

    def forward(point: Arrays) -> tuple[np.ndarray, object]:
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in point.items() if k != "x"}})
        model.set_generator_state(generators)
        y, saved = model.forward(backend.asarray(point["x"]), True)
        return backend.to_numpy(y), saved

    point = {"x": x, **{k: backend.to_numpy(a).copy() for k, a in model.named_parameters().items()}}
    _, saved = forward(point)
    gradients = {"x": backend.to_numpy(model.backward(backend.asarray(dy), saved)).copy()}
    gradients |= {k: backend.to_numpy(a).copy() for k, a in model.named_gradients().items()}
    check(lambda p: float(np.vdot(forward(p)[0], dy)), point, gradients, rng)


@pytest.mark.parametrize("name", ["lenet5", "simple_cnn"])
def test_model_and_loss(backend: Backend, name: str, rng: np.random.Generator) -> None:
    model = models.create(
        name, in_channels=2, num_classes=5, image_size=12, backend=backend.name, seed=3, dtype="float64"
    )
    labels = backend.asarray(rng.integers(0, 5, 3))
    state = model.state_dict()
    settings = {"label_smoothing": 0.1}

    def forward(point: Arrays) -> tuple[float, object, object]:
        model.load_state_dict({**state, **{k: v for k, v in point.items() if k != "x"}})
        logits, saved = model.forward(backend.asarray(point["x"]), True)
        loss, probs = backend.softmax_cross_entropy_forward(logits, labels, **settings)
        return float(backend.to_numpy(loss)), probs, saved

    point = {"x": rng.standard_normal((3, 2, 12, 12)), **{k: state[k] for k in model.named_parameters()}}
    _, probs, saved = forward(point)
    dlogits = backend.softmax_cross_entropy_backward(probs, labels, **settings)
    gradients = {"x": backend.to_numpy(model.backward(dlogits, saved)).copy()}
    gradients |= {k: backend.to_numpy(a).copy() for k, a in model.named_gradients().items()}
    check(lambda p: forward(p)[0], point, gradients, rng)


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
    window = Window(kernel, attrs["stride"], attrs["padding"], attrs["dilation"], output)
    x = np.moveaxis(rng.standard_normal(shape), 1, -1)
    cols = im2col(x, window, attrs["groups"])
    c = rng.standard_normal(cols.shape)
    back = col2im(c, x.shape, window)
    size = np.linalg.norm(cols) * np.linalg.norm(c)
    np.testing.assert_allclose(np.vdot(cols, c), np.vdot(x, back), rtol=0, atol=1e-13 * size)
