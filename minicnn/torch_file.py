"""Reading what torch.save wrote, without running code from the file or taking more memory than it holds.

Torch reads tensors and plain containers only (``weights_only=True``).  The file's zip is checked before,
since torch would allocate whatever it claims, and the tensors afterwards, whose strides may repeat bytes.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minicnn.checkpoint import MOST_BYTES, CheckpointError
from minicnn.regular_file import read_regular

OLDEST_TORCH = (2, 10)
"""Older ones can be made to write outside their memory by a file, even with ``weights_only=True``."""

MOST_PICKLE_BYTES = 4 << 20
"""Of a zip's entry with the names and shapes; those of a large network take a few hundred kB."""

_SAVE_AGAIN = "load it in torch and save it again with torch.save(state_dict, FILE)"


def read(path: Path) -> Any:
    """What a file of torch.save holds, its tensors on the host.

    Raises: CheckpointError naming the file and what is wrong with it
    """
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            f"{path}: only torch reads this format: pip install torch, or give a .safetensors file"
        ) from None
    _check_version(path, torch.__version__)
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    _check_zip(path, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles; one that cannot be read raises
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, since the file may be anything
        raise _torn(path, error) from None
    _check_sizes(path, content)
    return content


def _check_version(path: Path, version: str) -> None:
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise CheckpointError(
            f"{path}: expected torch {oldest} or later to read it safely, got {version}; "
            "upgrade torch, or give a .safetensors file"
        )


def _torn(path: Path, error: Exception) -> CheckpointError:
    why = str(error).partition("\n")[0]
    return CheckpointError(f"{path} is torn, or not a state dict of torch's: {why}")


def _check_zip(path: Path, data: bytes) -> None:
    """Raise CheckpointError unless the data is a zip that takes no more memory than its own length."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        if data[:2] == b"\x80\x02":  # a pickle of protocol 2, as torch wrote before 1.6
            raise CheckpointError(f"{path} has the format of torch before 1.6: {_SAVE_AGAIN}")
        raise CheckpointError(f"{path} is torn, or not a state dict of torch's: expected a zip file")
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise _torn(path, error) from None
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise CheckpointError(f"{path}: expected a zip with nothing compressed: {_SAVE_AGAIN}")
        if entry.filename.endswith(".pkl") and entry.file_size > MOST_PICKLE_BYTES:
            most = f"a list of tensors of at most {MOST_PICKLE_BYTES} bytes"
            raise CheckpointError(f"{path}: expected {most}, got {entry.file_size}")
    total = sum(entry.file_size for entry in entries)
    if total > len(data):
        raise CheckpointError(f"{path} is torn: expected entries of {len(data)} bytes, got {total}")


def _check_sizes(path: Path, content: Any) -> None:
    """Raise CheckpointError if a tensor has more bytes than are stored, as one with a stride of 0."""
    for name, tensor in _tensors(content):
        stored, size = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
        if size > stored:
            raise CheckpointError(f"{path}: {name}: expected {stored} bytes, as are stored, got {size}")


def _tensors(content: Any) -> Iterator[tuple[str, Any]]:
    """Every dense tensor with values in dictionaries, with the key under which it stands."""
    import torch

    seen: set[int] = set()
    waiting = [content]
    while waiting:
        container = waiting.pop()
        if not isinstance(container, Mapping) or id(container) in seen:
            continue
        seen.add(id(container))
        waiting += container.values()
        for name, value in container.items():
            if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
                yield str(name), value
