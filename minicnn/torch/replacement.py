"""What stands in the place of a module's forward while it is accelerated.

It is kept in the module itself, as the attribute ``forward``, which Python finds before the method of the
class.  So the module keeps its class, parameters, names, hooks and modes; its copies have copies of this.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from minicnn.torch.parts import MODULES
from minicnn.torch.plan import Plan
from minicnn.torch.steps import Step, Timing
from minicnn.torch.tracing import names_in

SIMPLE = (bool, int, float, str, type(None))
"""Types of attributes on which a forward may branch."""
Decision = tuple[dict[bool, bool], dict[bool, Timing], bool | None]
_making = Lock()


class Replacement:
    """Calls the code of the plan that fits the call, or the module's own forward if none does."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.plans: dict[bool, Plan] | None = {mode: Plan(module, mode) for mode in (True, False)}
        self.decisions: dict[tuple[bool, str], Decision] = {}
        self._attributes, self._children = _attributes(module), list(module._modules.values())
        self.__signature__ = inspect.signature(type(module).forward.__get__(module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self.module
        plans = self.plans if self.plans is not None else self._make_plans()
        plan = plans[module.training]
        if kwargs or len(args) != plan.arguments or not self._as_traced() or _has_any_global_hook():  # type: ignore[no-untyped-call]
            return type(module).forward(module, *args, **kwargs)
        return plan.run(module, *args)

    def steps(self) -> Iterator[tuple[bool, str, Step]]:
        """The mode (training or not), the name and the step, of all steps."""
        for mode, plan in (self.plans or self._make_plans()).items():
            for name, step in plan.steps.items():
                yield mode, name, step

    def _as_traced(self) -> bool:
        """Whether the module is what was traced: its children, and attributes its forward may branch on."""
        own = vars(self.module)
        for name, value in self._attributes:
            if own.get(name) is not value and own.get(name) != value:
                return False
        children = self.module._modules
        if len(children) != len(self._children):
            return False
        return all(a is b for a, b in zip(children.values(), self._children, strict=True))

    # ---- copies ------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Replacement:
        """A copy for the copied module.  It shares the code and the steps, which keep nothing of a call."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin.module = copy.deepcopy(self.module, memo)
        twin._children = [copy.deepcopy(child, memo) for child in self._children]
        return twin

    def __copy__(self) -> Replacement:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the decisions; the code is made again at the first call."""
        decisions = {
            (mode, name): (step.on, step.timings, step.autocast) for mode, name, step in self.steps()
        }
        return {**vars(self), "plans": None, "decisions": decisions}

    def _make_plans(self) -> dict[bool, Plan]:
        with _making:
            if self.plans is None:
                plans = {mode: Plan(self.module, mode) for mode in (True, False)}
                for (mode, name), decision in self.decisions.items():
                    step = plans[mode].steps[name]
                    step.on, step.timings, step.autocast = decision
                self.plans = plans
            return self.plans


class Alone:
    """The forward of one module of `minicnn.torch.parts.MODULES`, whose surroundings cannot be traced."""

    def __init__(self, module: nn.Module) -> None:
        op = MODULES[type(module)]
        self.module, self.step = module, Step((op,), op, (module,), (True,))

    def __call__(self, input: Tensor) -> Tensor:
        step, module = self.step, self.module
        if step.recording:
            step.values, step.arguments = (input,), (module,)
        if step.on[torch.is_grad_enabled()] and step.possible((input,), (module,)):
            return step.fast((input,), (module,))
        return type(module).forward(module, input)  # type: ignore[no-any-return]

    def steps(self) -> Iterator[tuple[bool, str, Step]]:
        """The step, which serves both modes."""
        yield True, "", self.step


Forward = Replacement | Alone


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """The simple attributes, with their values, that the code of the module's class names."""
    named = names_in(type(module))
    return [
        (name, value)
        for name, value in vars(module).items()
        if name in named and name != "training" and isinstance(value, SIMPLE)
    ]
