"""Checkpoints: one safetensors file with the tensors, and everything else as JSON in its metadata.

Nothing is pickled, so a file from a stranger cannot run code, and any safetensors reader opens it.
The tensors are ``model.<name>`` (parameters and buffers, named as in ``state_dict``),
``optimizer.<name>``, and ``training.<name>`` where weights are averaged.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.files import to_json, write_atomically
from minicnn.plausible import check_finite, check_state
from minicnn.regular_file import read_regular
from minicnn.schema import check, short

FORMAT = 1
MOST_BYTES = 4 << 30
"""The largest file that is read.  vgg16 with Adam's state and averaged weights has 2.2e9 bytes."""

Tensors = dict[str, np.ndarray]


class CheckpointError(ValueError):
    """A checkpoint is missing, torn, foreign, or of another model; the message names the file."""


@dataclass
class Checkpoint:
    """All that a run needs to go on, or a model to be used, as if nothing had happened."""

    config: dict[str, Any]
    """The run's settings by name."""
    class_names: list[str]
    image_shape: tuple[int, int, int]
    """(C, H, W), each at least 1."""
    mean: list[float]
    """(C,) per channel, of training pixels in [0, 1]."""
    std: list[float]
    """Above 0."""
    fingerprint: str
    """Of the dataset."""
    epoch: int = 0
    """Whole epochs done."""
    batch: int = 0
    """Batches done of the epoch under way."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch under way: loss (times images), correct, images, seconds."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry for each epoch done: the lines of metrics.jsonl."""
    best_accuracy: float = -1.0
    """Of the validation images after the best epoch; -1 before the first, and where there are none."""
    optimizer_steps: int = 0
    generators: dict[str, Any] = field(default_factory=dict)
    """States of the dropout generators.  Shuffling needs none: it follows from seed and epoch."""
    split: dict[str, str | list[str]] = field(default_factory=dict)
    """Which images of a folder are in which part: a `data.record.SplitRecord`; empty if unknown."""
    model: Tensors = field(default_factory=dict)
    """The weights that predict: the averages, where weights are averaged."""
    training: Tensors = field(default_factory=dict)
    """Where weights are averaged, those that the optimizer changes; else empty: they are ``model`` then."""
    optimizer: Tensors = field(default_factory=dict)

    @property
    def temperature(self) -> float | None:
        """What logits are to be divided by, if one was fitted; it is of the last whole epoch's weights."""
        return self.history[-1].get("temperature") if self.history else None


_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
"""The types of safetensors that NumPy has."""

_TENSORS = ("model", "training", "optimizer")
_ADDED: dict[str, Any] = {"split": {}}
"""What the first checkpoints did not hold, and what they meant by that."""


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises: OSError (full disk, ...) or ValueError (numbers that JSON has not): the old file stays
    """
    from safetensors.numpy import save as to_bytes

    tensors = {
        f"{group}.{name}": np.asarray(array, order="C")
        for group in _TENSORS
        for name, array in getattr(checkpoint, group).items()
    }
    state = {key: value for key, value in asdict(checkpoint).items() if key not in _TENSORS}
    text = to_json(state)
    metadata = {"minicnn": text, "minicnn_format": str(FORMAT), "minicnn_crc32": _checksum(tensors, text)}
    write_atomically(path, to_bytes(tensors, metadata))


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint whole and check it.

    Raises: CheckpointError naming the file and what is wrong with it
    """
    tensors, metadata = read_tensors(Path(path))
    if "minicnn" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of minicnn")
    if metadata.get("minicnn_format") != str(FORMAT):
        got = metadata.get("minicnn_format")
        raise CheckpointError(f"{path}: expected checkpoint format {FORMAT}, got {got}")
    if metadata.get("minicnn_crc32") != _checksum(tensors, metadata["minicnn"]):
        raise CheckpointError(f"{path} is damaged: its checksum does not match its content")
    try:
        state = json.loads(metadata["minicnn"])
    except (ValueError, RecursionError, MemoryError) as error:  # an integer too long, a list too deep
        raise CheckpointError(f"{path}: its metadata is not JSON: {error}") from None
    expected = {f.name for f in fields(Checkpoint)} - set(_TENSORS)
    if not isinstance(state, dict) or set(state) | _ADDED.keys() != expected:
        keys = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: expected metadata {sorted(expected)}, got {short(keys)}")
    state = _ADDED | state
    try:
        check(Checkpoint, state, without=_TENSORS)
    except ValueError as error:
        raise CheckpointError(f"{path}: its metadata: {error}") from None
    state["image_shape"] = tuple(state["image_shape"])
    state |= {group: _group(tensors, f"{group}.") for group in _TENSORS}
    saved = Checkpoint(**state)
    try:
        check_state(saved)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return saved


def check_tensors(path: str | Path, got: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    """The tensors of a file are those of a model: same names, shapes and dtypes.

    Raises: CheckpointError naming the file, the first tensor that differs, and how
    """
    for name, wanted in expected.items():
        if name not in got:
            raise CheckpointError(f"{path}: expected tensor {name}, which is not there")
        there, want = got[name], f"{wanted.dtype} {tuple(wanted.shape)}"
        if (there.shape, there.dtype) != (tuple(wanted.shape), wanted.dtype):
            raise CheckpointError(f"{path}: {name}: expected {want}, got {there.dtype} {there.shape}")
    if unexpected := sorted(set(got) - set(expected)):
        raise CheckpointError(f"{path}: unexpected tensor {unexpected[0]}: this model has no such")


def refuse_not_finite(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise CheckpointError naming the file and the first tensor that has a NaN or an infinite number."""
    try:
        check_finite(tensors)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of any safetensors file; bfloat16, which NumPy has not, becomes float32.

    Raises: CheckpointError naming the file and what is wrong with it
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: expected a file such as {path}/best.safetensors")
    try:
        # From memory: a file that is cut while it is mapped would end the process.
        tensors, metadata = _parsed(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except KeyError as error:  # 8-bit floats, which NumPy lacks
        raise CheckpointError(f"{path}: expected tensors of a type that NumPy has: {error}") from None
    except MemoryError:
        raise CheckpointError(f"{path}: its tensors do not fit in memory") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is torn, or not a safetensors file: {error}") from None
    return tensors, metadata


def _parsed(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file.  Raises ValueError, and KeyError for an unknown type."""
    from safetensors import SafetensorError, deserialize

    try:
        entries: Any = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(error) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # safetensors' own, which is no Exception
            raise
        raise ValueError(error) from None
    # The library's order is not always the same.
    tensors = {name: _array(entry) for name, entry in sorted(entries, key=lambda pair: pair[0])}
    length = int.from_bytes(content[:8], "little")  # of the header, which the library has checked
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    return tensors, metadata


def _array(entry: dict[str, Any]) -> np.ndarray:
    """A tensor of a safetensors file.  bfloat16 is the upper half of a float32.  Raises KeyError."""
    if entry["dtype"] == "BF16":
        flat = (np.frombuffer(entry["data"], "<u2").astype("<u4") << 16).view("<f4")
    else:
        flat = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
    return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(entry["shape"])


def _group(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: Tensors, text: str) -> str:
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
