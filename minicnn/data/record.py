"""Which images of a folder a model learnt from, was chosen by and was tested on."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicnn.data.facts import Digests


def _none() -> Digests:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class SplitRecord:
    """The digests of the images of each part, sorted, and the names of the test images below the root."""

    train: Digests = field(default_factory=_none)
    validation: Digests = field(default_factory=_none)
    test: Digests = field(default_factory=_none)
    test_files: list[str] = field(default_factory=list)

    @classmethod
    def of_digests(cls, parts: dict[str, Digests], test_files: list[str]) -> SplitRecord:
        """The record of parts whose images have these digests."""
        return cls(**{name: np.sort(digests) for name, digests in parts.items()}, test_files=test_files)

    def as_json(self) -> dict[str, str | list[str]]:
        """The record as JSON holds it, about 11 bytes for each image and the names; `of_json` reads it."""
        packed = {name: _packed(getattr(self, name)) for name in ("train", "validation", "test")}
        return {**packed, "test_files": self.test_files}

    @classmethod
    def of_json(cls, saved: dict[str, Any]) -> SplitRecord | None:
        """The record that a checkpoint holds; None if it holds none.

        Raises: ValueError about a record that is not sound
        """
        if not saved:
            return None
        names = ["test", "test_files", "train", "validation"]
        if sorted(saved) != names:
            raise ValueError(f"split: expected {', '.join(names)}, got {', '.join(sorted(saved))}")
        if not isinstance(saved["test_files"], list):
            raise ValueError(
                f"split: test_files: expected a list of names, got {saved['test_files']!r:.60}"
            )
        parts = {name: _unpacked(name, saved[name]) for name in names if name != "test_files"}
        return cls(**parts, test_files=saved["test_files"])


def _packed(numbers: Digests) -> str:
    return base64.b64encode(numbers.astype("<u8").tobytes()).decode()


def _unpacked(name: str, text: Any) -> Digests:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<u8").astype(np.uint64)
    except (TypeError, ValueError, binascii.Error):
        raise ValueError(f"split: {name}: expected 64-bit numbers in base64, got {text!r:.60}") from None
