"""The bits of ten training steps and of a prediction of the nets, as they were saved.

One wide VGG stands for six, which take minutes.  `python -m scripts.fingerprints` compares all.
"""

from __future__ import annotations

import every_model
import pytest

from minicnn import models
from minicnn.backends import available_backends
from scripts import fingerprints


@pytest.mark.parametrize("name", [*every_model.NAMES, "vgg11_bn"])
def test_bits_are_those_that_were_saved(name: str) -> None:
    if available_backends()["cpp"] is not None:
        pytest.skip(f"there is no cpp backend: {available_backends()['cpp']}")
    expected = fingerprints.saved().get(fingerprints.target())
    if expected is None:
        pytest.skip(f"no bits are saved for {fingerprints.target()}, where they may be others")
    assert fingerprints.fingerprint(name) == expected[name]


def test_every_net_has_saved_bits() -> None:
    for target, hashes in fingerprints.saved().items():
        assert hashes.keys() == {*models.names()}, target
        assert len({*hashes.values()}) == len(hashes), target


def test_other_bits_give_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step fewer: the hash is of what is computed, not of the names."""
    if available_backends()["cpp"] is not None:
        pytest.skip(f"there is no cpp backend: {available_backends()['cpp']}")
    before = fingerprints.fingerprint("lenet5")
    monkeypatch.setattr(fingerprints, "STEPS", 9)
    assert fingerprints.fingerprint("lenet5") != before
