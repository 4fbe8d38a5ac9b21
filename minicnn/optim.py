"""Optimizers: hyperparameters and state; the arithmetic is the backend's `*_step` operations.

Each equals torch.optim's optimizer of the same name, step by step, and takes its arguments.  ``lr``, the
learning rate, may be changed between steps.  State arrays live on the model's backend and are made at the
first step.  The formulas and their sources are in minicnn/ops/optimizers.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minicnn import shapes
from minicnn.backends import Array, Backend
from minicnn.layers.layer import Layer

States = dict[str, dict[str, Array]]


class Optimizer:
    """What all optimizers share: the number of steps so far, and the state arrays of each parameter."""

    slots: tuple[str, ...]
    """Names of the state arrays that every parameter has, each starting at zero."""

    def __init__(self, lr: float) -> None:
        self.lr = self._at_least_0("lr", lr)
        self.steps = 0
        self.states: States = {}

    def _at_least_0(self, name: str, value: float) -> float:
        return shapes.at_least_0(type(self).__name__, name, value)

    def step(self, model: Layer) -> None:
        """Change the model's parameters in place, by its gradients; those of frozen layers stay.

        Raises: ValueError if a parameter has no gradient
        """
        params, grads = model.named_parameters(trainable_only=True), model.named_gradients()
        if params.keys() != grads.keys():
            missing = sorted(params.keys() - grads.keys())
            raise ValueError(f"[{type(self).__name__}] gradients: expected one per parameter, no {missing}")
        self._make_states(model)
        self.steps += 1
        slots = [[self.states[slot][name] for name in params] for slot in self.slots]
        self._update(model.backend, list(params.values()), [grads[name] for name in params], *slots)

    def _update(
        self, backend: Backend, params: list[Array], grads: list[Array], *slots: list[Array]
    ) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define _update")

    def numbers(self) -> tuple[float, float, float, float]:
        """What is another number in each step, for step number ``steps``.

        It is lr, and of Adam lr / bias_correction1, the root of bias_correction2, and what decoupled weight
        decay leaves of a parameter.  `minicnn.backends.device` takes them in this order.
        """
        return self.lr, 0.0, 0.0, 0.0

    def _make_states(self, model: Layer) -> None:
        if not self.states:
            backend = model.backend
            for slot in self.slots:
                self.states[slot] = {
                    name: backend.asarray(np.zeros(tuple(a.shape), model.dtype))
                    for name, a in model.named_parameters(trainable_only=True).items()
                }

    def state_dict(self, model: Layer) -> dict[str, np.ndarray]:
        """Copies of the state arrays, such as "exp_avg.conv1.weight"; empty before the first step."""
        return {
            f"{slot}.{name}": np.array(model.backend.to_numpy(a), order="C")
            for slot, arrays in self.states.items()
            for name, a in arrays.items()
        }

    def load_state_dict(self, state: dict[str, np.ndarray], model: Layer, steps: int) -> None:
        """Go on from the copies that `state_dict` made of this model's optimizer after ``steps`` steps.

        Raises: ValueError naming arrays that are missing, unexpected or of another shape
        """
        self.states, self.steps = {}, steps
        if not state and steps == 0:
            return
        self._make_states(model)
        expected = self.state_dict(model)
        if state.keys() != expected.keys():
            differing = sorted(state.keys() ^ expected.keys())
            raise ValueError(f"[{type(self).__name__}] state: missing or unexpected {differing}")
        for slot, arrays in self.states.items():
            for name in arrays:
                key = f"{slot}.{name}"
                if state[key].shape != expected[key].shape:
                    reason = f"expected shape {expected[key].shape}, got {state[key].shape}"
                    raise ValueError(f"[{type(self).__name__}] {key}: {reason}")
                arrays[name] = model.backend.asarray(np.array(state[key], dtype=model.dtype))


class SGD(Optimizer):
    """Stochastic gradient descent, with Nesterov's momentum if ``nesterov``.

    Torch:  optim.SGD with dampening 0
    Raises: ValueError for a number below 0, or for nesterov without a momentum
    """

    slots = ("momentum_buffer",)

    def __init__(
        self, lr: float = 1e-2, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__(lr)
        self.momentum = self._at_least_0("momentum", momentum)
        self.weight_decay = self._at_least_0("weight_decay", weight_decay)
        self.nesterov = shapes.flag(type(self).__name__, "nesterov", nesterov)
        if nesterov and momentum <= 0:
            raise ValueError(f"[SGD] momentum: expected more than 0 with nesterov, got {momentum}")

    def _update(
        self, backend: Backend, params: list[Array], grads: list[Array], *slots: list[Array]
    ) -> None:
        backend.sgd_step(
            params, grads, *slots, lr=self.lr, momentum=self.momentum,
            weight_decay=self.weight_decay, nesterov=self.nesterov,
        )  # fmt: skip


class Adam(Optimizer):
    """Adam; weight_decay * parameter is added to the gradient.  Torch: optim.Adam."""

    slots = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(
        self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(lr)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            shapes.fail(type(self).__name__, "betas", "two numbers", shapes.shown(betas))
        beta1, beta2 = (shapes.below_1(type(self).__name__, "betas", beta) for beta in betas)
        self.betas = beta1, beta2
        self.eps = self._at_least_0("eps", eps)
        self.weight_decay = self._at_least_0("weight_decay", weight_decay)

    def numbers(self) -> tuple[float, float, float, float]:
        beta1, beta2 = self.betas
        keep = 1 - self.lr * self.weight_decay if self.decoupled else 1.0
        return self.lr, self.lr / (1 - beta1**self.steps), math.sqrt(1 - beta2**self.steps), keep

    def _update(
        self, backend: Backend, params: list[Array], grads: list[Array], *slots: list[Array]
    ) -> None:
        backend.adam_step(
            params, grads, *slots, lr=self.lr, beta1=self.betas[0], beta2=self.betas[1], eps=self.eps,
            weight_decay=self.weight_decay, decoupled=self.decoupled, step=self.steps,
        )  # fmt: skip


class AdamW(Adam):
    """Adam, but each step first multiplies the parameters by 1 - lr * weight_decay.  Torch: optim.AdamW."""

    decoupled = True

    def __init__(
        self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """RMSprop, not centred.  Torch: optim.RMSprop."""

    slots = ("square_avg", "momentum_buffer")

    def __init__(
        self, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(lr)
        self.alpha = self._at_least_0("alpha", alpha)
        self.eps = self._at_least_0("eps", eps)
        self.weight_decay = self._at_least_0("weight_decay", weight_decay)
        self.momentum = self._at_least_0("momentum", momentum)

    def _update(
        self, backend: Backend, params: list[Array], grads: list[Array], *slots: list[Array]
    ) -> None:
        backend.rmsprop_step(
            params, grads, *slots, lr=self.lr, alpha=self.alpha, eps=self.eps,
            weight_decay=self.weight_decay, momentum=self.momentum,
        )  # fmt: skip


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}


def create(name: str, lr: float, **options: Any) -> Optimizer:
    """The optimizer of this name: sgd, adam, adamw or rmsprop.  ``options`` are its other arguments.

    Raises: ValueError if there is no optimizer of this name
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"[optim] name: expected one of {', '.join(OPTIMIZERS)}, got {name}")
    return OPTIMIZERS[name](lr, **options)
