"""Each optimizer equals torch.optim's over many steps; clipping equals clip_grad_norm_."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minicnn import Trainer, optim
from minicnn.backends import Backend
from minicnn.testing import Check
from minicnn.testing.optimizers import OPTIONS, name_of, optimizer_checks, set_gradients, small_model


@pytest.mark.parametrize("check", list(optimizer_checks()), ids=str)
def test_equals_torch_step_by_step(backend: Backend, check: Check) -> None:
    check.run(backend)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=name_of)
def test_float32_stays_float32(
    backend: Backend, name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    model = small_model(backend, "float32")
    optimizer = getattr(optim, name)(**options)
    gradients = {
        key: rng.standard_normal(a.shape).astype(np.float32) for key, a in model.state_dict().items()
    }
    set_gradients(model, backend, gradients)
    optimizer.step(model)
    found = {**model.state_dict(), **optimizer.state_dict(model)}
    assert {a.dtype for a in found.values()} == {np.dtype("float32")}
    for key, a in model.named_gradients().items():  # a step must not change the gradients
        np.testing.assert_array_equal(backend.to_numpy(a), gradients[key])


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=name_of)
def test_state_continues_bit_for_bit(
    backend: Backend, name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    straight, resumed = small_model(backend, "float32"), small_model(backend, "float32")
    first, second = getattr(optim, name)(**options), getattr(optim, name)(**options)
    gradients = [
        {key: rng.standard_normal(a.shape).astype(np.float32) for key, a in straight.state_dict().items()}
        for _ in range(6)
    ]
    for step, g in enumerate(gradients):
        set_gradients(straight, backend, g)
        first.step(straight)
        if step == 2:
            resumed.load_state_dict(straight.state_dict())
            second.load_state_dict(first.state_dict(straight), resumed, first.steps)
    for g in gradients[3:]:
        set_gradients(resumed, backend, g)
        second.step(resumed)
    assert second.steps == first.steps
    for key, a in straight.state_dict().items():
        assert resumed.state_dict()[key].tobytes() == a.tobytes(), key


def test_state_dict_copies(backend: Backend) -> None:
    model = small_model(backend)
    optimizer = optim.SGD(lr=0.1, momentum=0.9)
    set_gradients(model, backend, {key: np.ones(a.shape) for key, a in model.state_dict().items()})
    optimizer.step(model)
    state = optimizer.state_dict(model)
    before = {key: a.copy() for key, a in state.items()}
    optimizer.step(model)
    other = optim.SGD(lr=0.1, momentum=0.9)
    other.load_state_dict(state, model, 1)
    other.step(model)
    for key, a in state.items():
        np.testing.assert_array_equal(a, before[key])


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e6])
def test_clipping_equals_torch(backend: Backend, limit: float, rng: np.random.Generator) -> None:
    model = small_model(backend)
    gradients = {key: rng.standard_normal(a.shape) for key, a in model.state_dict().items()}
    twins = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in gradients.values()]
    for t, g in zip(twins, gradients.values(), strict=True):
        t.grad = torch.from_numpy(g.copy())
    torch.nn.utils.clip_grad_norm_(twins, limit)
    before = model.state_dict()
    trainer = Trainer(model, optim.SGD(lr=1.0), clip_norm=limit)
    trainer.compute_gradients = lambda *_: set_gradients(model, backend, gradients) or 0.0
    trainer.step(np.zeros((1, 1, 4, 4)), np.zeros(1, np.int64))
    for t, (key, a) in zip(twins, model.state_dict().items(), strict=True):
        np.testing.assert_allclose(before[key] - a, t.grad, rtol=1e-12, atol=1e-15, err_msg=key)


def test_global_norm_scale_and_average(backend: Backend, dtype: np.dtype, rng: np.random.Generator) -> None:
    hosts = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 4), (5,), (2, 3, 3, 3), (0,))]
    arrays = [backend.asarray(a.copy()) for a in hosts]
    rounding = 8 * np.finfo(dtype).eps
    norm = backend.global_norm(arrays)
    assert isinstance(norm, float)
    flat = np.concatenate([a.ravel() for a in hosts]).astype(np.float64)
    np.testing.assert_allclose(norm, np.linalg.norm(flat), rtol=rounding)
    averages = [backend.asarray(np.ones_like(a)) for a in hosts]
    backend.ema_update(averages, arrays, decay=0.75)
    backend.scale(arrays, 0.5)
    for host, array, average in zip(hosts, arrays, averages, strict=True):
        np.testing.assert_allclose(backend.to_numpy(array), host * dtype.type(0.5), rtol=rounding)
        expected = 0.75 + 0.25 * host.astype(np.float64)
        np.testing.assert_allclose(backend.to_numpy(average), expected, rtol=rounding, atol=rounding)


def test_every_element_of_large_arrays_is_changed_once(
    backend: Backend, threads: Callable[[int], None], rng: np.random.Generator
) -> None:
    """The arrays are so large that a GPU needs several blocks, and a CPU thread several pieces of work."""
    threads(2)
    hosts = [rng.integers(-9, 9, size).astype(np.float32) for size in (70_000, 3, 50_000)]
    arrays = [backend.asarray(a.copy()) for a in hosts]
    ones, buffers = ([backend.asarray(make(a)) for a in hosts] for make in (np.ones_like, np.zeros_like))
    backend.sgd_step(arrays, ones, buffers, lr=2.0, momentum=0.0, weight_decay=0.0, nesterov=False)
    for host, array in zip(hosts, arrays, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(array), host - 2)
    assert backend.global_norm(ones) == math.sqrt(120_003)


def test_a_parameter_of_no_dimension_is_stepped_as_one_of_one_element(backend: Backend) -> None:
    """A learnable temperature, say."""

    def stepped(shape: tuple[int, ...]) -> list[float]:
        w, g, m, s = ([backend.asarray(np.full(shape, value))] for value in (2.0, 0.5, 0.0, 0.0))
        backend.sgd_step(w, g, m, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
        backend.adam_step(
            w, g, m, s, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01, decoupled=False, step=3
        )
        backend.rmsprop_step(w, g, s, m, lr=0.1, alpha=0.9, eps=1e-8, weight_decay=0.01, momentum=0.9)
        backend.ema_update(m, w, decay=0.9)
        backend.scale(s, 2.0)
        return [float(backend.to_numpy(a[0]).sum()) for a in (w, m, s)]

    assert stepped(()) == stepped((1,))
    assert stepped(())[0] < 2.0


def test_norm_of_nothing_is_zero(backend: Backend) -> None:
    assert backend.global_norm([]) == 0.0


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_created_by_name(name: str) -> None:
    optimizer = optim.create(name, 0.25, weight_decay=0.5)
    assert type(optimizer).__name__.lower() == name
    assert (optimizer.lr, optimizer.weight_decay, optimizer.steps) == (0.25, 0.5, 0)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"^\[optim\] name: expected one of sgd, .*, got lion$"):
        optim.create("lion", 0.1)
    with pytest.raises(ValueError, match=r"^\[Adam\] lr: expected a number of at least 0, got -1$"):
        optim.Adam(lr=-1)
    with pytest.raises(ValueError, match=r"^\[SGD\] momentum: expected more than 0 with nesterov, got 0"):
        optim.SGD(lr=0.1, nesterov=True)


def test_step_without_gradients_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"^\[SGD\] gradients: expected one per parameter"):
        optim.SGD(lr=0.1).step(small_model(backend))


def test_state_of_another_model_is_refused(backend: Backend) -> None:
    model = small_model(backend)
    with pytest.raises(ValueError, match=r"^\[SGD\] state: missing or unexpected"):
        optim.SGD(lr=0.1).load_state_dict({"momentum_buffer.x": np.zeros(3)}, model, 1)
