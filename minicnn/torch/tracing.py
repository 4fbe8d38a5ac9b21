"""One module's own forward as a graph: its children are called as they are, and nothing below them is seen.

`trace` refuses a forward whose graph would not stand for every call: one that branches on values, draws
random numbers in Python, changes the module, or computes with tensors that are neither arguments nor
parameters nor buffers.
"""

from __future__ import annotations

import inspect
import operator
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn


class Untraceable(Exception):
    """A forward that no graph can stand for; the message says why."""


class _Value(fx.Proxy):
    """A proxy that keeps ``a += b``, which torch.fx would write as ``a + b``."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _OwnForward(fx.Tracer):
    """Traces one forward.  Arguments that have a default keep it."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def create_args_for_root(
        self,
        root_fn: Callable[..., Any],
        is_module: bool,  # noqa: ARG002
        concrete_args: Any = None,  # noqa: ARG002
    ) -> tuple[Callable[..., Any], list[Any]]:
        names = required_arguments(root_fn)
        return root_fn, [self.root, *(self.create_proxy("placeholder", name, (), {}) for name in names)]


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The names of a forward's arguments that have no default, after self.

    Raises: Untraceable if it takes others by ``*args`` or without their names
    """
    names = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.KEYWORD_ONLY):
            if parameter.default is parameter.empty:
                raise Untraceable(f"its forward takes {parameter}")
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
    return names


def trace(module: nn.Module, training: bool) -> fx.Graph:
    """The graph of the module's own forward, in training or in evaluation.

    Raises: Untraceable with the reason
    """
    mode, versions = module.training, [(buffer, buffer._version) for buffer in _plain_buffers(module)]
    before, random_states = _attributes(module), _random_states()
    module.training = training
    try:
        graph = _OwnForward().trace(module)
    except Untraceable:
        raise
    except Exception as error:  # whatever a forward does with a proxy that a proxy cannot do
        line = str(error).strip().partition("\n")[0]
        raise Untraceable(f"torch.fx cannot trace it: {line or type(error).__name__}") from error
    finally:
        module.training = mode
        changed = _restore(before)
    if changed:
        raise Untraceable(f"its forward changes or makes {', '.join(sorted(changed))}")
    if _random_states() != random_states:
        raise Untraceable("its forward draws random numbers outside torch's functions")
    if any(buffer._version != version for buffer, version in versions):
        raise Untraceable("its forward changes a buffer")
    return graph


def _plain_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers that count their changes."""
    return [buffer for buffer in module.buffers() if not buffer.is_inference()]


Kept = list[tuple[dict[str, Any], dict[str, Any]]]


def _attributes(module: nn.Module) -> Kept:
    """Each dict of attributes, parameters or buffers of the module and of those in it, with a copy."""
    own = [d for part in module.modules() for d in (vars(part), part._parameters, part._buffers)]
    return [(attributes, dict(attributes)) for attributes in own]


def _restore(kept: Kept) -> set[str]:
    """Give the modules their attributes back; the names of those that were not the same."""
    changed: set[str] = set()
    for now, before in kept:
        different = {name for name in {*now, *before} if now.get(name) is not before.get(name)}
        if different:
            now.clear()
            now.update(before)
        changed |= different
    return changed


def _random_states() -> tuple[Any, ...]:
    numpys: Any = np.random.get_state()
    return random.getstate(), numpys[1].tobytes(), numpys[2], torch.random.get_rng_state().tolist()
