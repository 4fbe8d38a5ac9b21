"""Values out of JSON against a dataclass: what fits, and what is told of what does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from minicnn.schema import check, fits


@dataclass
class Example:
    number: int
    share: float
    name: str | None
    shape: tuple[int, int]
    rows: list[dict[str, float]] = field(default_factory=list)
    flag: bool = False


GOOD: dict[str, Any] = {"number": 3, "share": 1, "name": None, "shape": [2, 3]}


def test_what_fits_passes_with_and_without_defaults() -> None:
    check(Example, GOOD)
    check(Example, GOOD | {"rows": [{"a": 0.5}, {}], "flag": True, "name": "x"})
    check(Example, {"flag": True}, without=("number", "share", "name", "shape", "rows"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": 3}, "expected name, which is not there"),
        (GOOD | {"more": 1}, "unexpected more"),
        (GOOD | {"number": 3.0}, "number: expected int, got 3.0"),
        (GOOD | {"number": True}, "number: expected int, got True"),
        (GOOD | {"share": "1"}, "share: expected float, got '1'"),
        (GOOD | {"name": 3}, "name: expected str | None, got 3"),
        (GOOD | {"shape": [2]}, "shape: expected tuple[int, int], got [2]"),
        (GOOD | {"shape": [2, None]}, "shape: expected tuple[int, int], got [2, None]"),
        (GOOD | {"rows": [{"a": []}]}, "rows: expected list[dict[str, float]], got [{'a': []}]"),
        (GOOD | {"flag": 1}, "flag: expected bool, got 1"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        check(Example, values)
    assert str(error.value) == message


def test_anything_is_of_any_type() -> None:
    assert fits([{"a": None}], list[dict[str, Any]])
    assert not fits({}, list[Any])
