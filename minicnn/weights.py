"""State dicts from anywhere, made to fit a model: the one way in for `load_state_dict` and for files.

Training scripts save weights in several wrappings, which are taken off here: dictionaries that hold the
state beside other things, and prefixes that modules around the model put before every name.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray]

SHOWN = 3
"""Names that an error lists."""

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights",
    "params", "model_ema", "ema_state_dict", "state_dict_ema", "ema",
)  # fmt: skip
"""Keys under which training scripts save a state dict beside other things."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What torch's DataParallel, torch.compile and Lightning put before every name."""

_DEEPEST = 4
"""Dictionaries within dictionaries that are looked into."""


class Misfit(ValueError):
    """A state dict cannot be read or does not fit the model; the message does not say where it is from."""


class Taken(NamedTuple):
    """A state dict as the model has it, and how it was understood."""

    state: Tensors
    """Copies with the model's own names, shapes and dtypes."""
    new: list[str]
    """The names whose shapes may differ, and did; not in ``state``."""
    ignored: list[str]
    """Names that the model has no place for, by design: auxiliary heads."""
    notes: list[str]
    """The dictionary that was chosen and the prefix that was taken off, in words."""


def take(
    content: Any, mine: Tensors, *, ignored_prefixes: tuple[str, ...] = (), free: Collection[str] = ()
) -> Taken:
    """What a state dict, or a dictionary that holds one, means for a model whose state is ``mine``.

    Tensors are NumPy's or torch's, of any real type; they get the dtypes of ``mine``.  Counts of batches
    that are missing, as in files from before 2018, are 0.  Names in ``free`` may differ in their first
    dimension.

    Raises: Misfit naming what is missing, unexpected, ambiguous, of another shape or unreadable
    """
    state, where = ({}, "") if content == {} and not mine else find_state(content)
    prefix = _prefix(state, mine, ignored_prefixes)
    counter = {name for name in state if _is_counter(name, mine)}
    own = {name.removeprefix(prefix): value for name, value in state.items() if name not in counter}
    shapes = {name: _shape(name, own[name]) for name in mine if name in own}
    differing = [name for name, shape in shapes.items() if shape != mine[name].shape]
    new = [name for name in differing if name in free and shapes[name][1:] == mine[name].shape[1:]]
    wrong = [
        f"{name}: expected shape {mine[name].shape}, got {shapes[name]}"
        for name in differing
        if name not in new
    ]
    if wrong:
        raise Misfit(f"the state does not fit the model: {first(wrong)}")
    notes = [f"the state dict under {where}"] if where else []
    notes += [f"names without {prefix}"] if prefix else []
    return Taken(
        {
            name: _cast(name, to_array(name, own[name]), a.dtype) if name in own else np.zeros_like(a)
            for name, a in mine.items()
            if name not in new
        },
        new,
        [name for name in own if name not in mine],
        notes,
    )


def find_state(content: Any) -> tuple[Mapping[str, Any], str]:
    """The dictionary of tensors in what a training script saved, and the keys where it was.

    Raises: Misfit if there is none, or more than one
    """
    found = _states(content)
    if len(found) > 1:
        raise Misfit(f"expected one state dict, got several: {', '.join(where for _, where in found)}")
    if not found:
        if isinstance(content, Mapping) and content:
            key, value = next(iter(content.items()))
            raise Misfit(f"expected a state dict of tensors, got {_kind(value)} under {key}")
        raise Misfit(f"expected a state dict, got {_kind(content)}")
    state, where = found[0]
    for name, value in state.items():
        if not isinstance(name, str):
            raise Misfit(f"expected a state dict with names, got the key {name!r:.60}")
        if not is_tensor(value):
            raise Misfit(f"expected a state dict of tensors, got {_kind(value)} under {name}")
    return state, where


def to_array(name: str, value: Any) -> np.ndarray:
    """The values of a tensor, NumPy's or torch's, on the host; 16-bit numbers of torch's become float32.

    Raises: Misfit naming the tensor if it is not dense, has no values, or its numbers are not real
    """
    check_tensor(name, value)
    array: np.ndarray = _from_torch(name, value) if _is_torch(value) else np.asarray(value)
    if array.dtype.name == "bfloat16":  # of a package that has taught it to NumPy
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise Misfit(f"{name}: expected real numbers, got {array.dtype}")
    return array


def check_tensor(name: str, value: Any) -> None:
    """Raise Misfit unless this is an array, or a torch tensor whose values can be read."""
    oddity = _oddity(value) if _is_torch(value) else None
    if oddity is not None:
        raise Misfit(f"{name}: expected a dense tensor of real numbers, got {oddity}")


def is_tensor(value: Any) -> bool:
    """Whether this is an array of NumPy's, or of a library whose arrays NumPy can read."""
    return hasattr(type(value), "__array__")


def first(items: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{', '.join(items[:SHOWN])}{more}"


# ---- dictionaries and names ----------------------------------------------------------------------------


def _states(content: Any, keys: tuple[str, ...] = ()) -> list[tuple[Mapping[str, Any], str]]:
    """Every dictionary with tensors, and the keys under which it stands."""
    if not isinstance(content, Mapping) or len(keys) > _DEEPEST:
        return []
    found = [state for key in WRAPPERS if key in content for state in _states(content[key], (*keys, key))]
    if not found and any(map(is_tensor, content.values())):
        return [(content, ".".join(keys))]
    return found


def _is_counter(name: str, mine: Tensors) -> bool:
    """Whether this is the number of updates that torch's AveragedModel keeps beside the weights."""
    return name.rpartition(".")[2] == "n_averaged" and name not in mine


def _prefix(state: Mapping[str, Any], mine: Tensors, ignored: tuple[str, ...]) -> str:
    """What stands before the model's names in all names of a state.  Raises Misfit if they do not fit."""
    names = [name for name in state if not _is_counter(name, mine)]
    best: tuple[str, list[str], list[str]] | None = None
    for prefix in _common_prefixes(names):
        bare = {name.removeprefix(prefix) for name in names}
        missing = [n for n in mine if n not in bare and not n.endswith("num_batches_tracked")]
        unexpected = [n for n in names if not _has_place(n.removeprefix(prefix), mine, ignored)]
        if not missing and not unexpected:
            return prefix
        if best is None or len(missing) < len(best[1]):
            best = prefix, missing, unexpected
    assert best is not None
    prefix, missing, unexpected = best
    partly = [p for p in PREFIXES if any(f"{prefix}{p}{name}" in state for name in missing)]
    if partly:
        raise Misfit(
            f"expected {partly[0]} before all names or before none, got {first(unexpected)} and others"
        )
    parts = [f"no {first(missing)}"] if missing else []
    parts += [f"{first(unexpected)}, which the model has not"] if unexpected else []
    raise Misfit(f"the state does not fit the model: it has {'; '.join(parts)}")


def _common_prefixes(names: list[str]) -> Iterator[str]:
    """What all names may begin with before the model's own: nothing, then one prefix more at a time."""
    prefix: str | None = ""
    while prefix is not None:
        yield prefix
        longer = [prefix + p for p in PREFIXES if names and all(n.startswith(prefix + p) for n in names)]
        prefix = longer[0] if longer else None


def _has_place(name: str, mine: Tensors, ignored: tuple[str, ...]) -> bool:
    return name in mine or name.startswith(ignored)


# ---- values --------------------------------------------------------------------------------------------


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _oddity(tensor: Any) -> str | None:
    """What keeps the values of a torch tensor from being read as real numbers, if anything does."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        return "a lazy one that has seen no batch"
    if tensor.is_nested:
        return "a nested one"
    if tensor.layout != torch.strided:
        return f"one of layout {tensor.layout}"
    if tensor.is_quantized:
        return f"a quantized one, {tensor.dtype}"
    if tensor.is_meta:
        return "one without values, on the device meta"
    return f"{tensor.dtype}" if tensor.is_complex() else None


def _from_torch(name: str, tensor: Any) -> np.ndarray:
    half = tensor.is_floating_point() and tensor.element_size() < 4
    try:
        host = tensor.detach().cpu().resolve_neg()
        array: np.ndarray = (host.float() if half else host).numpy()
    except (RuntimeError, TypeError, ValueError) as error:  # of a subclass with other storage
        why = str(error).partition("\n")[0]
        raise Misfit(f"{name}: expected a tensor with values, got {type(tensor).__name__}: {why}") from None
    return array


def _shape(name: str, value: Any) -> tuple[int, ...]:
    check_tensor(name, value)
    return tuple(value.shape)


def _cast(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A copy of this dtype.  Raises Misfit if it does not hold the numbers."""
    with np.errstate(over="raise", invalid="raise"):
        try:
            cast = np.array(array, dtype=dtype, order="C")
        except FloatingPointError:
            raise Misfit(f"{name}: expected numbers that {dtype} holds, got others") from None
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise Misfit(f"{name}: expected whole numbers, got others")
    return cast


def _kind(value: Any) -> str:
    return "an empty one" if isinstance(value, Mapping) and not value else type(value).__name__
