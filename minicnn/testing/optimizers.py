"""Optimizer steps compared with torch.optim's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from minicnn import optim
from minicnn.backends.base import Backend
from minicnn.layers import Conv2d, Dense, Flatten, Sequential
from minicnn.testing.checks import Check
from minicnn.testing.tolerance import Error, assert_close, error

STEPS = 20

OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.1, "betas": (0.5, 0.99), "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.0}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-4}),
    ("RMSprop", {"lr": 0.01, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
)
ALLOWED = 1e-13
"""The largest error allowed, relative to the largest value of a parameter, in float64."""


def name_of(option: Any) -> str:
    """An optimizer's name as it is, or its options as one text, such as "lr=0.1,momentum=0.9"."""
    return option if isinstance(option, str) else ",".join(f"{k}={v}" for k, v in option.items())


def small_model(backend: Backend, dtype: str = "float64") -> Sequential:
    return Sequential(
        Conv2d(1, 2, 3), Flatten(), Dense(8, 3), backend=backend, dtype=dtype, input_shape=(1, 4, 4)
    )


def set_gradients(model: Sequential, backend: Backend, gradients: dict[str, np.ndarray]) -> None:
    for prefix, layer in model.named_layers():
        layer.grads = {name: backend.asarray(gradients[f"{prefix}.{name}"].copy()) for name in layer.params}


def steps_equal_torch(name: str, options: dict[str, Any], backend: Backend) -> Error:
    """After each of `STEPS` steps the parameters equal torch.optim's.  Returns the largest error."""
    import torch

    rng = np.random.default_rng(len(options))
    model = small_model(backend)
    twins = {key: torch.tensor(a, requires_grad=True) for key, a in model.state_dict().items()}
    mine = getattr(optim, name)(**options)
    theirs = getattr(torch.optim, name)(list(twins.values()), **options)
    errors = []
    for step in range(STEPS):
        gradients = {key: rng.standard_normal(tuple(t.shape)) for key, t in twins.items()}
        if step == 7:  # a gradient of exactly zero is a step like any other
            gradients = {key: np.zeros_like(g) for key, g in gradients.items()}
        for key, t in twins.items():
            t.grad = torch.from_numpy(gradients[key].copy())
        set_gradients(model, backend, gradients)
        if step == 10:  # the learning rate may change between steps
            mine.lr = options["lr"] / 3
            theirs.param_groups[0]["lr"] = options["lr"] / 3
        mine.step(model)
        theirs.step()
        for key, a in model.state_dict().items():
            expected = twins[key].detach().numpy()
            assert_close(a, expected, ALLOWED, f"{key} after step {step + 1}")
            errors.append(error(a, expected))
    return Error(max(e.relative for e in errors), max(e.ulps for e in errors))


STEP_OF = {"SGD": "sgd_step", "Adam": "adam_step", "AdamW": "adam_step", "RMSprop": "rmsprop_step"}


def optimizer_checks() -> Iterator[Check]:
    """Every optimizer and its options against torch.optim, in float64."""
    for name, options in OPTIONS:
        subject = f"{name}({name_of(options)})"
        run = partial(steps_equal_torch, name, options)
        yield Check(STEP_OF[name], "float64", "torch optim", subject, run)
