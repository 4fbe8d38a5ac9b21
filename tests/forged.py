"""Checkpoints as a stranger could write them: with a checksum that is right, whatever they say."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.numpy import save

from minicnn import checkpoint
from minicnn.checkpoint import Checkpoint

_GROUPS = ("model", "training", "optimizer")


def forge(path: Path, saved: Checkpoint, text: str | None = None) -> None:
    """Write a checkpoint, NaN and infinity included; ``text`` takes the place of its metadata."""
    tensors = {f"{group}.{name}": a for group in _GROUPS for name, a in getattr(saved, group).items()}
    if text is None:
        text = json.dumps({key: value for key, value in asdict(saved).items() if key not in _GROUPS})
    crc = checkpoint._checksum(tensors, text)
    metadata = {"minicnn": text, "minicnn_format": str(checkpoint.FORMAT), "minicnn_crc32": crc}
    path.write_bytes(save(tensors, metadata))
