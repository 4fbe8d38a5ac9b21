"""One module's own forward as a graph: its children are called as they are, and nothing below them is seen.

`trace` refuses a forward whose graph would not stand for every call: one that branches on values, draws
random numbers in Python, changes the module, or computes with tensors that are neither arguments nor
parameters nor buffers.
"""

from __future__ import annotations

import dis
import inspect
import operator
import random
import sys
from collections import deque
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn


class Untraceable(Exception):
    """A forward that no graph can stand for; the message says why."""


ASKS_TYPE = "its forward asks what type a value is"
IN_PLACE = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
)
"""What Python writes as ``a += b``, ``a -= b`` and so on, by the names of Python's methods."""


class Value(fx.Proxy):
    """A proxy that keeps ``a += b``, which torch.fx would write as ``a + b``, and hides no type."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What isinstance reads besides ``type``: the code that asks would take the branch of a proxy.

        torch asks too, to find proxies among the arguments of its functions.
        """
        asking = sys._getframe(1)
        if asking.f_code is torch.is_tensor.__code__ or not _is_torchs(asking.f_globals.get("__name__")):
            raise Untraceable(ASKS_TYPE)
        return Value


def _keep_in_place(name: str) -> None:
    function = getattr(operator, f"i{name}" if name not in ("and", "or") else f"__i{name}__")

    def method(self: Value, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    setattr(Value, f"__i{name}__", method)


for _name in IN_PLACE:
    _keep_in_place(_name)


class _OwnForward(fx.Tracer):
    """Traces one forward.  Arguments that have a default keep it."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Value(node, self)

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
    if asks_type(type(module)):
        raise Untraceable(ASKS_TYPE)
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


# ---- what the code of a class says -------------------------------------------------------------------


def names_in(cls: type) -> set[str]:
    """The names that the functions of a module's class read, and those of functions that they call."""
    return {name for code in _code(cls, lambda name: name != "__init__") for name in code.co_names}


def asks_type(cls: type) -> bool:
    """Whether a forward calls ``type``, which tells a proxy from a tensor and which no proxy notices."""
    return any(
        (instruction.opname, instruction.argval) == ("LOAD_GLOBAL", "type")
        for code in _code(cls, lambda name: name == "forward")
        for instruction in dis.get_instructions(code)
    )


def _code(cls: type, wanted: Callable[[str], bool]) -> set[CodeType]:
    """The code of the wanted functions of a module's class, and of what they call by name but torch's."""
    methods: dict[str, list[FunctionType]] = {}
    for owner in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for name, value in vars(owner).items():
            function = inspect.unwrap(value.fget if isinstance(value, property) else value)  # type: ignore[arg-type]
            if isinstance(function, FunctionType):
                methods.setdefault(name, []).append(function)
    found: set[CodeType] = set()
    waiting = [function for name, own in methods.items() if wanted(name) for function in own]
    while waiting:
        function = waiting.pop()
        if function.__code__ in found:
            continue
        for code in _with_inner(function.__code__):
            found.add(code)
            for name in code.co_names:
                called = inspect.unwrap(function.__globals__.get(name))  # type: ignore[arg-type]
                if isinstance(called, FunctionType) and not _is_torchs(called.__module__):
                    waiting.append(called)
                waiting += methods.get(name, [])
    return found


def _with_inner(code: CodeType) -> list[CodeType]:
    """A function's code, and that of the functions and comprehensions in it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [code, *(c for one in inner for c in _with_inner(one))]


def _is_torchs(module: str | None) -> bool:
    return f"{module}.".startswith("torch.")


# ---- what a trace may not change -----------------------------------------------------------------------


def _plain_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers that count their changes."""
    return [buffer for buffer in module.buffers() if not buffer.is_inference()]


Container = Any
"""A dict, list, set or deque."""
Kept = list[tuple[str, Container, Any]]


def _attributes(module: nn.Module) -> Kept:
    """Each container that the module and those in it hold, with its attribute's name and its content.

    The dicts of attributes, parameters and buffers have many names, so they have none here.
    """
    kept: Kept = []
    for part in module.modules():
        kept += [("", own, dict(own)) for own in (vars(part), part._parameters, part._buffers)]
        for name, value in vars(part).items():
            kept += [(name, inner, _content(inner)) for inner in _containers(value)]
    return kept


def _containers(value: Any) -> list[Container]:
    """The value and what it contains, as far as they are containers."""
    found: dict[int, Container] = {}
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list | set | deque) and id(one) not in found:
            found[id(one)] = one
            waiting += one.values() if isinstance(one, dict) else one
    return [*found.values()]


def _content(container: Container) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _identities(content: Any) -> Any:
    """What a container holds, by identity."""
    if isinstance(content, dict):
        return [(key, id(value)) for key, value in content.items()]
    return [id(value) for value in content]


def _restore(kept: Kept) -> set[str]:
    """Give the modules their attributes back; the names of those that were not the same."""
    changed: set[str] = set()
    for name, container, before in kept:
        now = _content(container)
        if _identities(now) == _identities(before):
            continue
        changed |= (
            {name} if name else {key for key in {*now, *before} if now.get(key) is not before.get(key)}
        )
        container.clear()
        (container.extend if isinstance(container, list | deque) else container.update)(before)
    return changed


def _random_states() -> tuple[Any, ...]:
    numpys: Any = np.random.get_state()
    return random.getstate(), numpys[1].tobytes(), numpys[2], torch.random.get_rng_state().tolist()
