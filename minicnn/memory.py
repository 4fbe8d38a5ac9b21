"""How much memory there is, and whether it suffices: a run that cannot fit is refused before it begins."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicnn.layers import Sequential

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

_FLOAT, _BFLOAT16 = 4, 2  # bytes


class NotEnoughMemory(ValueError):
    """More memory would be needed than there is; the message says how much, and what needs less."""


def check_memory(need: int, what: str, remedy: str) -> None:
    """Raise NotEnoughMemory if ``need`` bytes are more than `available_memory`.

    The message is ``WHAT needs 12.3 GB of memory, and 4.5 GB are available; REMEDY``.
    """
    available = available_memory()
    if available is not None and need > available:
        there = f"{shown(available)} are available"
        raise NotEnoughMemory(f"{what} needs {shown(need)} of memory, and {there}; {remedy}")


def available_memory() -> int | None:
    """Bytes that this process may still take, by what the machine has and by what its cgroups allow.

    On Linux, memory that only caches files counts as available.  Elsewhere it is all of the machine's
    memory; None where the system does not tell.
    """
    amounts = [*_of_machine(), *_of_cgroups()]
    return min(amounts, default=None)


def card_memory() -> int | None:
    """Bytes that are free on this process's card; None where there is none, as under emulation."""
    from minicnn.backends import cuda_build

    if cuda_build.emulated():
        return None
    import torch

    return int(torch.cuda.mem_get_info()[0])


def training_memory(
    model: Sequential, input_shape: tuple[int, int, int], batch: int, precision: str = "float32"
) -> int:
    """Bytes that a step of training takes at least: weights, gradients, what is kept for the backward pass.

    Args:   model as `models.build` makes it, without memory for its weights, or one that has them
            input_shape (C,H,W) · precision that the model will compute in
    Raises: ValueError if images of this shape do not fit the model
    """
    graph = model.graph(training=True)
    shapes = graph.shapes(input_shape)
    owned = {node.owner: node for node in graph.nodes if node.owner is not None}
    learners = {owner: node for owner, node in owned.items() if owner.requires_grad}
    weights = sum(math.prod(array.shape) for array in model.state_shapes().values())
    gradients = sum(math.prod(shape) for owner in learners for shape in owner.param_shapes().values())
    kept = {node.inputs[0] for owner, node in learners.items() if owner.param_shapes()}
    activations = batch * sum(math.prod(shapes[value]) for value in kept)
    return _FLOAT * (weights + gradients) + (_BFLOAT16 if precision == "bfloat16" else _FLOAT) * activations


def _of_machine() -> Iterator[int]:
    fields = _fields(PROC / "meminfo")
    if "MemAvailable:" in fields:
        yield 1024 * (fields["MemAvailable:"] + fields.get("SwapFree:", 0))
        return
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return


def _of_cgroups() -> Iterator[int]:
    """What each cgroup of this process, and each above it, has left: version 2, then version 1."""
    for line in _lines(PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(CGROUPS, path, "memory.max", "anon")
        elif "memory" in controllers.split(","):
            yield from _left(CGROUPS / "memory", path, "memory.limit_in_bytes", "total_rss")


def _left(root: Path, path: str, limit: str, used: str) -> Iterator[int]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        lines, fields = _lines(folder / limit), _fields(folder / "memory.stat")
        if lines and lines[0].isdecimal() and used in fields:
            yield max(int(lines[0]) - fields[used], 0)


def _fields(path: Path) -> dict[str, int]:
    """The numbers in a file of lines ``name number ...``."""
    words = [line.split() for line in _lines(path)]
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def shown(count: int) -> str:
    """A number of bytes: 12.3 GB, or 4.5 MB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
