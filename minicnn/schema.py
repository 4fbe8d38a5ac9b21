"""Whether values out of a JSON document are of the types that a dataclass declares for its fields."""

from __future__ import annotations

from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def check(owner: type, values: dict[str, Any], *, without: tuple[str, ...] = ()) -> None:
    """Refuse values that are not of the dataclass ``owner``'s fields and types; a default's may be missing.

    Raises: ValueError naming the field, what was expected and what came
    """
    hints = {name: hint for name, hint in get_type_hints(owner).items() if name not in without}
    optional = {f.name for f in fields(owner) if (f.default, f.default_factory) != (MISSING, MISSING)}
    if missing := sorted(hints.keys() - optional - values.keys()):
        raise ValueError(f"expected {missing[0]}, which is not there")
    if unexpected := sorted(values.keys() - hints.keys()):
        raise ValueError(f"unexpected {unexpected[0]}")
    for name, value in values.items():
        if not fits(value, hints[name]):
            wanted = hints[name] if get_args(hints[name]) else hints[name].__name__
            raise ValueError(f"{name}: expected {wanted}, got {short(value)}")


def short(value: Any) -> str:
    """The beginning of a value's ``repr``, for a message, however deep the value is nested."""
    try:
        return f"{value!r:.60}"
    except (RecursionError, ValueError):  # ValueError: an integer of more digits than Python prints
        return f"{type(value).__name__} that cannot be printed"


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; an int passes for a float, a bool for neither."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return True
    if kind is UnionType:
        return any(fits(value, part) for part in parts)
    if kind is list:
        return isinstance(value, list) and all(fits(one, parts[0]) for one in value)
    if kind is tuple:  # a list in JSON
        return isinstance(value, list) and len(value) == len(parts) and all(map(fits, value, parts))
    if kind is dict:
        return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)
