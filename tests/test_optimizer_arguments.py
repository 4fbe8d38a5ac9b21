"""The scalars of optimizer steps: what is refused, with the same words on every backend."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from minicnn import optim
from minicnn.backends import Backend, get_backend

STEPS: dict[str, tuple[int, dict[str, Any]]] = {
    "sgd_step": (3, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    "adam_step": (4, {
        "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01, "decoupled": True,
        "step": 3,
    }),
    "rmsprop_step": (4, {"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "weight_decay": 0.01, "momentum": 0.5}),
    "ema_update": (2, {"decay": 0.9}),
    "scale": (1, {"factor": 0.5}),
}  # fmt: skip
"""Operation -> how many lists it takes, and scalars that are right."""

FLAGS = {"nesterov", "decoupled"}
NO_NUMBERS = ["0.1", None, True, np.True_, np.ones(2), 1j, b"1", [0.1]]


def run(backend: Backend, name: str, scalars: dict[str, Any]) -> list[np.ndarray]:
    """The arrays after a step on ones."""
    count, _ = STEPS[name]
    lists = [[backend.asarray(np.ones(3, np.float32))] for _ in range(count)]
    getattr(backend, name)(*lists, **scalars)
    return [np.array(backend.to_numpy(arrays[0])) for arrays in lists]


@pytest.mark.parametrize(
    ("name", "scalar"), [(name, scalar) for name, (_, scalars) in STEPS.items() for scalar in scalars]
)
def test_scalars_of_a_wrong_type_are_refused(backend: Backend, name: str, scalar: str) -> None:
    wanted, wrong = "a number", NO_NUMBERS
    if scalar in FLAGS:
        wanted, wrong = "True or False", ["yes", None, 1, 0.5, np.ones(2)]
    if scalar == "step":
        wanted, wrong = "an integer of at least 1", [0, -1, 1.0, "1", None, np.ones(2)]
    for value in wrong:
        with pytest.raises(ValueError, match="expected") as error:
            run(backend, name, {**STEPS[name][1], scalar: value})
        shown = "ndarray" if isinstance(value, np.ndarray) else repr(value)
        assert str(error.value) == f"[{name}] {scalar}: expected {wanted}, got {shown}"


@pytest.mark.parametrize("scalar", ["beta1", "beta2"])
@pytest.mark.parametrize("value", [1.0, 1, -0.1, float("nan")])
def test_betas_are_below_1(backend: Backend, scalar: str, value: float) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        run(backend, "adam_step", {**STEPS["adam_step"][1], scalar: value})
    assert str(error.value) == f"[adam_step] {scalar}: expected a number from 0 to below 1, got {value!r}"


@pytest.mark.parametrize("name", STEPS)
def test_numbers_of_every_kind_give_the_same(backend: Backend, name: str) -> None:
    scalars = STEPS[name][1]
    expected = run(
        backend, name, {key: value and type(value)(0.5 + (key == "step")) for key, value in scalars.items()}
    )
    for half in (np.float64(0.5), np.float32(0.5), np.array(0.5), Fraction(1, 2)):
        given = {
            key: np.bool_(value) if key in FLAGS else np.int64(1) if key == "step" else half
            for key, value in scalars.items()
        }
        for a, b in zip(run(backend, name, given), expected, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD("0.1"), "[SGD] lr: expected a number of at least 0, got '0.1'"),
        (lambda: optim.SGD(-0.1), "[SGD] lr: expected a number of at least 0, got -0.1"),
        (lambda: optim.SGD(float("nan")), "[SGD] lr: expected a number of at least 0, got nan"),
        (lambda: optim.SGD(momentum=None), "[SGD] momentum: expected a number of at least 0, got None"),
        (lambda: optim.Adam(True), "[Adam] lr: expected a number of at least 0, got True"),
        (lambda: optim.Adam(eps=-1), "[Adam] eps: expected a number of at least 0, got -1"),
        (lambda: optim.AdamW(betas=(0.9, 1.0)),
         "[AdamW] betas: expected a number from 0 to below 1, got 1.0"),
        (lambda: optim.Adam(betas=0.9), "[Adam] betas: expected two numbers, got 0.9"),
        (lambda: optim.RMSprop(weight_decay="x"),
         "[RMSprop] weight_decay: expected a number of at least 0, got 'x'"),
        (lambda: optim.RMSprop(alpha=-0.5), "[RMSprop] alpha: expected a number of at least 0, got -0.5"),
        (lambda: optim.SGD(nesterov=1, momentum=0.9), "[SGD] nesterov: expected True or False, got 1"),
    ],
)  # fmt: skip
def test_optimizers_refuse_what_torchs_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        make()
    assert str(error.value) == message


def shared(backend: Backend) -> Any:
    """An array of three elements with memory for one."""
    one = backend.asarray(np.ones(1, np.float32))
    return np.lib.stride_tricks.as_strided(one, (3,), (0,)) if backend.name == "numpy" else one.expand(3)


def test_arrays_that_cannot_be_changed_are_refused(backend: Backend) -> None:
    own = [backend.asarray(np.ones(3, np.float32)) for _ in range(2)]
    message = "expected an array that can be changed in place, got one whose elements share memory"
    sgd = STEPS["sgd_step"][1]
    with pytest.raises(ValueError, match=rf"^\[sgd_step\] params\[1\]: {message}$"):
        backend.sgd_step([own[0], shared(backend)], own, own, **sgd)
    assert backend.to_numpy(own[0]).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=rf"^\[ema_update\] averages\[0\]: {message}$"):
        backend.ema_update([shared(backend)], own[:1], decay=0.5)
    backend.ema_update(own[:1], [shared(backend)], decay=0.5)
    x = backend.asarray(np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1))
    norm = {"momentum": 0.1, "eps": 1e-5}
    with pytest.raises(ValueError, match=rf"^\[batch_norm2d\] running_var: {message}$"):
        backend.batch_norm2d_forward(x, None, None, own[0], shared(backend), training=True, **norm)
    backend.batch_norm2d_forward(x, None, None, own[0], shared(backend), training=False, **norm)


def test_a_read_only_array_is_refused_before_anything_changes() -> None:
    backend = get_backend("numpy")
    own, fixed = np.ones(3, np.float32), np.ones(3, np.float32)
    fixed.flags.writeable = False
    message = (
        r"^\[sgd_step\] buffers\[1\]: expected an array that can be changed in place, got a read-only one$"
    )
    with pytest.raises(ValueError, match=message):
        backend.sgd_step([own, own], [own, own], [own, fixed], **STEPS["sgd_step"][1])
    assert own.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", [*STEPS, "global_norm"])
def test_wrong_arrays_of_a_step_are_named(backend: Backend, name: str) -> None:
    count, scalars = STEPS.get(name, (1, {}))
    first = {"ema_update": "averages", "scale": "arrays", "global_norm": "arrays"}.get(name, "params")
    single, double, whole = (backend.asarray(np.ones(3, kind)) for kind in ("float32", "float64", "int64"))
    for arrays, message in (
        ([whole], "[0]: expected dtype float32 or float64, got int64"),
        ([single, double], "[1]: expected dtype float32, got float64"),
    ):
        with pytest.raises(ValueError, match="expected") as error:
            getattr(backend, name)(*[arrays] * count, **scalars)
        assert str(error.value) == f"[{name}] {first}{message}"
