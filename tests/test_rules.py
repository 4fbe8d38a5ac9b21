"""The rules of the contract that do not belong to one case: kinks, ties, NaN and infinities, state."""

from __future__ import annotations

import pytest

from minicnn.backends import Backend
from minicnn.testing import Check, rule_checks


@pytest.mark.parametrize("check", list(rule_checks()), ids=str)
def test_rule(backend: Backend, check: Check) -> None:
    check.run(backend)
