"""Files that a stranger may have made: special ones, links, huge and endless ones.  One line, no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
from forged import forge
from refused import line_of
from safetensors.numpy import save, save_file

from minicnn import checkpoint, evaluate, files, models, pretrained, recipes, train
from minicnn.app.command_line import exit_with
from minicnn.app.prediction import NotFinite, predict_images
from minicnn.app.run_folder import RunFolder
from minicnn.checkpoint import Checkpoint, CheckpointError
from minicnn.data import read_image
from minicnn.data.checksum import read_verified
from minicnn.data.idx import read_idx
from minicnn.regular_file import read_regular
from scripts.special_files import make_device, make_loop, make_sparse

DEEP = "[" * 100_000


# ---- kinds of files --------------------------------------------------------------------------------------

SPECIAL = {
    "fifo": (os.mkfifo, "expected a regular file, got a FIFO"),
    "device": (make_device, "expected a regular file, got a device"),
    "folder": (Path.mkdir, "a folder"),
    "loop": (make_loop, "Too many levels of symbolic links"),
    "sparse": (make_sparse, "expected at most [0-9,]+ bytes, got "),
}


def read_checkpoint(path: Path) -> object:
    return checkpoint.load(path)


def read_recipe(path: Path) -> object:
    return recipes.arguments(str(path))


def read_png(path: Path) -> object:
    return read_image(path, channels=None, size=None)


def read_labels(path: Path) -> object:
    return read_idx(path, 1)


def read_published(path: Path) -> object:
    return read_verified(path, "0")


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": read_checkpoint, ".toml": read_recipe, ".png": read_png, "-idx1-ubyte": read_labels,
    ".mat": read_published,
}  # fmt: skip


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("kind", SPECIAL)
def test_only_regular_files_of_a_limited_size_are_read(kind: str, suffix: str, tmp_path: Path) -> None:
    make, words = SPECIAL[kind]
    path = tmp_path / f"x{suffix}"
    make(path)
    with pytest.raises((OSError, ValueError), match=words):
        READERS[suffix](path)


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 3) == b"abc"
    with pytest.raises(OSError, match="expected at most 2 bytes, got more"):
        read_regular(tmp_path / "link", 2)


# ---- writing ---------------------------------------------------------------------------------------------


def test_a_link_where_a_file_is_written_aside_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the name that earlier versions used, and of the very name that is used now."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".c.json.tmp").symlink_to(precious)
    files.write_json(tmp_path / "c.json", {"a": 1})
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "known")
    (tmp_path / ".c.json.known.tmp").symlink_to(precious)
    with pytest.raises(OSError, match=r"cannot write .*c\.json: File exists"):
        files.write_json(tmp_path / "c.json", {"a": 2})
    assert precious.read_text() == "mine"
    assert json.loads((tmp_path / "c.json").read_text()) == {"a": 1}


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "c.json").symlink_to(precious)
    files.write_json(tmp_path / "c.json", {"a": 1})
    assert precious.read_text() == "mine"
    assert not (tmp_path / "c.json").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, make_loop, lambda p: p.symlink_to("new")])
def test_the_lock_of_a_folder_is_a_file_of_its_own(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(OSError, match="cannot write to "), RunFolder(tmp_path).locked():
        pass
    assert not (tmp_path / "new").exists()


def test_what_a_killed_run_left_half_written_is_deleted(tmp_path: Path) -> None:
    for name in (".checkpoint.safetensors.tmp", ".best.safetensors.0123.tmp", ".mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    with RunFolder(tmp_path).locked():
        assert {p.name for p in tmp_path.iterdir()} == {".lock", ".mine.tmp"}


# ---- tensors ---------------------------------------------------------------------------------------------


def test_a_file_that_shrinks_while_it_is_read_ends_no_process(tmp_path: Path) -> None:
    """A mapped file would end it, with SIGBUS."""
    path = tmp_path / "c.safetensors"
    content = save({"w": np.zeros(1 << 20, np.float32)})
    path.write_bytes(content)
    code = f"""if True:
        from pathlib import Path
        from minicnn.checkpoint import CheckpointError, read_tensors
        for _ in range(200):
            try:
                read_tensors(Path({str(path)!r}))
            except CheckpointError:
                pass
    """
    reader = subprocess.Popen([sys.executable, "-c", code])
    while reader.poll() is None:
        path.write_bytes(content)
        os.truncate(path, 100)
    assert reader.returncode == 0


class PanicException(BaseException):
    """What safetensors raises where its own code fails."""


def test_a_panic_of_the_library_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(_: bytes) -> None:
        raise PanicException("slice index starts at 9 but ends at 4")

    save_file({"a": np.zeros(3)}, tmp_path / "c.safetensors")
    monkeypatch.setattr(safetensors, "deserialize", panic)
    with pytest.raises(CheckpointError, match=r"c\.safetensors is torn, .*: slice index starts at 9"):
        checkpoint.read_tensors(tmp_path / "c.safetensors")


@pytest.mark.parametrize("shape", [[0, 1 << 62, 1 << 62], [1 << 63, 1 << 63]])
def test_shapes_that_no_array_has_are_refused(shape: list[int], tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "c.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"c\.safetensors is torn"):
        checkpoint.read_tensors(tmp_path / "c.safetensors")


def lenet5() -> models.Sequential:
    return models.create("lenet5", in_channels=1, num_classes=2, image_size=12, backend="numpy")


def of_lenet5() -> Checkpoint:
    sums = {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}
    return Checkpoint(
        {"model": "lenet5"},
        ["a", "b"],
        (1, 12, 12),
        [0.5],
        [0.5],
        "",
        sums=sums,
        model=lenet5().state_dict(),
    )


@pytest.mark.parametrize("text", [DEEP, f'{{"epoch": {DEEP}', '{"epoch": 1' + "0" * 5000 + "}"])
def test_metadata_that_is_nested_too_deep_or_too_long_is_refused(text: str, tmp_path: Path) -> None:
    forge(tmp_path / "c.safetensors", of_lenet5(), text)
    with pytest.raises(CheckpointError, match=r"c\.safetensors: its metadata is not JSON: "):
        checkpoint.load(tmp_path / "c.safetensors")


# ---- numbers that are none -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(number: float, tmp_path: Path) -> None:
    saved, path = of_lenet5(), tmp_path / "c.safetensors"
    saved.model["conv1.bias"][2] = number
    forge(path, saved)
    message = rf"c\.safetensors: conv1\.bias: expected finite numbers, got {number} in 1 places"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)
    save_file(saved.model, path)
    with pytest.raises(CheckpointError, match=message):
        pretrained.init_from(lenet5(), path)


def test_finite_weights_whose_answers_are_not_are_told() -> None:
    model, huge = lenet5(), lenet5().state_dict()
    huge["conv1.weight"][:] = 3e38
    model.load_state_dict(huge)
    with pytest.raises(NotFinite, match="the model gives 3 of 3 images numbers that are not finite"):
        predict_images(model, np.full((3, 1, 12, 12), 255, np.uint8), [0.1], [0.1])


def test_json_has_no_numbers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": np.nan})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json_lines(tmp_path / "a.jsonl", [{"loss": np.inf}])
    saved = of_lenet5()
    saved.mean = [np.nan]
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(tmp_path / "c.safetensors", saved)
    assert list(tmp_path.iterdir()) == []


# ---- one line, whatever was too much ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [f"epochs = {DEEP}", "epochs = 1" + "0" * 5000, "model = '" + "x" * 70_000]
)
def test_a_recipe_that_is_too_much_is_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    assert line_of(capsys, lambda: train.main(["--recipe", str(path)])).startswith(f"{path}: expected a")


MANY = "1" + "0" * 29


@pytest.mark.parametrize(
    "flag",
    [
        "--threads", "--epochs", "--batch-size", "--image-size", "--seed", "--limit-train", "--limit-test",
        "--test-every", "--early-stop",
    ],
)  # fmt: skip
def test_a_number_of_thirty_digits_is_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = line_of(capsys, lambda: train.main([flag, MANY]))
    assert message.startswith(f"argument {flag}: expected a whole number of at most ")


def test_evaluate_takes_no_number_of_thirty_digits(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--batch-size", "--limit-test", "--threads"):
        message = line_of(capsys, lambda flag=flag: evaluate.main(["--checkpoint", "x", flag, MANY]))
        assert message.startswith(f"argument {flag}: expected a whole number of at most ")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory, in minicnn.app.prediction.predict_images"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            "not enough memory, in minicnn.app.prediction.predict_images: Unable to allocate 9 TiB",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9\nframe #0"),
            "not enough memory, in minicnn.app.prediction.predict_images: "
            "DefaultCPUAllocator: can't allocate memory: you tried 9",
        ),
        (RecursionError(), "something is nested too deep, in minicnn.app.prediction.predict_images"),
        (
            OverflowError("int too large"),
            "a number is too large, in minicnn.app.prediction.predict_images: ",
        ),
        (PanicException("at 9"), "a library failed, in minicnn.app.prediction.predict_images: at 9"),
    ],
)
def test_what_is_too_much_for_a_machine_is_one_line(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Model:
        dtype = "float32"

        def prepared(self, _: object) -> object:
            return self

        @property
        def backend(self) -> None:
            raise error

    said = line_of(capsys, lambda: predict_images(Model(), np.zeros((1, 1, 1, 1), np.uint8), 0, 1))
    assert said.startswith(message)


def test_an_error_of_another_kind_keeps_its_traceback() -> None:
    def fault() -> None:
        raise KeyError("a mistake in the program")

    with pytest.raises(KeyError):
        exit_with(fault)
