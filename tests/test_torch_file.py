"""Files of torch.save that lie: about their sizes, what is in them, or how old they are."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minicnn import checkpoint, torch_file
from minicnn.checkpoint import CheckpointError
from minicnn.pretrained import read_state


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def rezipped(data: bytes, change: Callable[[str, bytes], bytes], compression: int) -> bytes:
    """The zip with other entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def deflated() -> bytes:
    return rezipped(saved({"a": torch.zeros(100_000)}), lambda _, data: data, zipfile.ZIP_DEFLATED)


def long_pickle() -> bytes:
    nothing = b"\x80\x02" + b"]" * torch_file.MOST_PICKLE_BYTES + b"."
    return rezipped(
        saved({"a": torch.zeros(1)}),
        lambda name, data: nothing if name.endswith("data.pkl") else data,
        zipfile.ZIP_STORED,
    )


def overlapping() -> bytes:
    """Two entries of the directory are the same bytes of the file."""
    data = saved({"a": torch.zeros(1000), "b": torch.zeros(1000)})
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        entry = max(old.infolist(), key=lambda entry: entry.file_size)
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as new:
        new.filelist += [entry] * 10
        new._didModify = True  # so that it writes its directory again
    return file.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (
        deflated,
        ": expected a zip with nothing compressed: load it in torch and save it again",
    ),
    "a long pickle": (long_pickle, ": expected a list of tensors of at most 4194304 bytes, got 4194307"),
    "overlapping entries": (overlapping, " is torn: expected entries of "),
    "an expanded tensor": (
        lambda: saved({"a": torch.ones(1).expand(1 << 20, 1 << 10)}),
        ": a: expected 4 bytes, as are stored, got 4294967296",
    ),
    "an expanded tensor in a wrapper": (
        lambda: saved({"state_dict": {"a": torch.ones(2, 1).expand(2, 8)}}),
        ": a: expected 8 bytes, as are stored, got 64",
    ),
    "the old format": (
        lambda: saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False),
        " has the format of torch before 1.6: load it in torch and save it again",
    ),
    "another pickle": (lambda: pickle.dumps({"a": 1}), " is torn, or not a state dict of torch's"),
    "nothing": (lambda: b"", " is torn, or not a state dict of torch's"),
    "sparse": (
        lambda: saved({"a": torch.eye(2).to_sparse()}),
        ": a: expected a dense tensor of real numbers, got one of layout torch.sparse_coo",
    ),
    "meta": (
        lambda: saved({"a": torch.ones(2, device="meta")}),
        ": a: expected a dense tensor of real numbers, got one without values, on the device meta",
    ),
    "complex": (
        lambda: saved({"a": torch.ones(2, dtype=torch.complex64).conj()}),
        ": a: expected a dense tensor of real numbers, got torch.complex64",
    ),
    "quantized": (
        lambda: saved({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        ": a: expected a dense tensor of real numbers, got a quantized one",
    ),
    "no tensor": (
        lambda: saved({"a": torch.ones(2), "b": 3}),
        ": expected a state dict of tensors, got int",
    ),
}


@pytest.mark.filterwarnings("ignore:.*quantized tensor")
@pytest.mark.parametrize("name", REFUSED)
def test_files_that_lie_are_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "w.pth"
    path.write_bytes(make())
    with pytest.raises(CheckpointError) as error:
        read_state(path)
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_tensors_that_share_their_values_are_read(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": weight, "b": weight, "c": weight.t(), "d": weight[:, 1]}, tmp_path / "w.pth")
    state = read_state(tmp_path / "w.pth")
    assert [a.tolist() for a in state.values()] == [
        a.tolist() for a in (weight, weight, weight.t(), weight[:, 1])
    ]


@pytest.mark.parametrize("version", ["2.9.1+cu130", "1.13", "2.6.0"])
def test_an_older_torch_does_not_read(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2)}, path)
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(CheckpointError, match=r"expected torch 2.10 or later .*, got .*; upgrade torch"):
        read_state(path)


@pytest.mark.parametrize("version", ["2.10.0", "2.14.1+cu130", "3.0.0a0+git12"])
def test_a_later_torch_reads(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "__version__", version)
    assert read_state(tmp_path / "w.pth")["a"].tolist() == [1, 1]


class PanicException(BaseException):
    """As that of safetensors' own code."""


@pytest.mark.parametrize("raised", [PanicException("range end"), MemoryError()])
def test_panics_of_safetensors_are_one_error(
    raised: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("safetensors.safe_open", fail)
    with pytest.raises(CheckpointError, match=r"w.safetensors"):
        read_state(tmp_path / "w.safetensors")


def test_deep_metadata_is_one_error(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    text = "[" * 200_000
    path = tmp_path / "c.safetensors"
    crc = checkpoint._checksum({}, text)
    save_file({}, path, {"minicnn": text, "minicnn_format": "1", "minicnn_crc32": crc})
    with pytest.raises(CheckpointError, match="its metadata is not JSON"):
        checkpoint.load(path)
