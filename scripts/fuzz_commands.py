"""More that scripts/fuzz_readers.py tries: what commands do with a file, pairs of files, special files."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from fuzz_targets import (
    SHAPE,
    Sample,
    Target,
    checkpoint_samples,
    idx_samples,
    packed,
    read_checkpoint,
    read_recipe,
    read_weights,
    weights_samples,
)
from fuzz_targets import TARGETS as READERS
from PIL import Image
from special_files import KINDS

from minicnn import checkpoint, data, evaluate, predict
from minicnn.app.experiment import Experiment
from minicnn.app.settings import Config
from minicnn.data.checksum import read_verified
from minicnn.data.idx import read_idx, read_idx_pair
from minicnn.saved_model import check_model

# ---- commands --------------------------------------------------------------------------------------------


def quietly(command: Callable[[list[str]], None], *arguments: object) -> None:
    """Run a command without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command([str(argument) for argument in arguments])


def predict_with(path: Path) -> None:
    image = path.with_name("image.png")
    if not image.exists():
        Image.new("L", SHAPE[1:], 99).save(image)
    quietly(predict.main, "--checkpoint", path, "--backend", "numpy", "--json", image)


def evaluate_with(path: Path) -> None:
    """Test on a folder with the classes of the sample checkpoint."""
    root = path.parent / "classes"
    if not root.exists():
        write_folder(root)
    quietly(evaluate.main, "--checkpoint", path, "--backend", "numpy", "--dataset", f"folder:{root}")


def write_folder(root: Path) -> None:
    """Two images for each class of the sample checkpoint."""
    for name in "abc":
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", SHAPE[1:], 40 * number).save(root / name / f"{number}.png")


@functools.cache
def dataset(root: Path) -> data.Dataset:
    write_folder(root)
    return data.load(f"folder:{root}")


def resume_from(path: Path) -> None:
    """What --resume does before its first step; the checkpoint's data are taken for those of its run."""
    saved = checkpoint.load(path)
    check_model(path, saved)
    found = dataset(path.parent / "resumed")
    if saved.class_names == found.class_names:
        saved.fingerprint = found.fingerprint
    config = Config.resolve(vars(Config.of_checkpoint(path, saved)))
    experiment = Experiment(config, found)
    experiment.restore(path, saved)
    experiment.checkpoint()


# ---- archives, pairs, special files ----------------------------------------------------------------------


def archive_samples(where: Path) -> list[Sample]:
    """torch's archive, with one of its members changed: the archive around it is whole."""
    (whole,) = (s.content for s in weights_samples(where) if s.content[:2] == b"PK")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    return [
        Sample(".pt", content, functools.partial(_archive, members, name))
        for name, content in members.items()
    ]


def _archive(members: dict[str, bytes], changed: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, old in members.items():
            archive.writestr(zipfile.ZipInfo(name), content if name == changed else old)
    return file.getvalue()


def pair_samples(where: Path) -> list[Sample]:
    """A file of images and one of labels, in one: 2 bytes say how long the first is."""
    (images, _) = idx_samples(where)
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 4, 2, 0, 1, 2])
    pairs = [(images.content, labels), (packed(images.content), packed(labels))]
    return [Sample("", len(first).to_bytes(2, "big") + first + second) for first, second in pairs]


def read_pair(path: Path) -> object:
    content = path.read_bytes()
    end = 2 + int.from_bytes(content[:2], "big")
    images, labels = path.with_name("images-of-pair"), path.with_name("labels-of-pair")
    images.write_bytes(content[2:end])
    labels.write_bytes(content[end:])
    return read_idx_pair(images, labels, 3)


SPECIAL_READERS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    (".png", lambda path: data.read_image(path, channels=None, size=None)),
    ("-idx3-ubyte", lambda path: read_idx(path, 3)),
    (".safetensors", read_checkpoint),
    (".toml", read_recipe),
    (".mat", lambda path: read_verified(path, "0")),
)


def special_samples(_: Path) -> list[Sample]:
    """The number of a kind of file, and of a reader."""
    return [
        Sample("", bytes([kind, reader]), valid=False)
        for kind in range(len(KINDS))
        for reader in range(len(SPECIAL_READERS))
    ]


def read_special(path: Path) -> object:
    """Read a special file that the input chooses, through a link as often as not."""
    kind, reader, linked = (path.read_bytes() + bytes(3))[:3]
    suffix, read = SPECIAL_READERS[reader % len(SPECIAL_READERS)]
    folder = path.parent / "special"
    folder.mkdir()
    try:
        special = folder / f"special{suffix}"
        KINDS[kind % len(KINDS)](special)
        if linked % 2:
            special = folder / f"link{suffix}"
            special.symlink_to(f"special{suffix}")
        return read(special)
    finally:
        shutil.rmtree(folder)


TARGETS: dict[str, Target] = READERS | {
    "predict": Target(predict_with, checkpoint_samples, 6, 64),
    "evaluate": Target(evaluate_with, checkpoint_samples, 2, 64),
    "resume": Target(resume_from, checkpoint_samples, 4, 64),
    "archive": Target(read_weights, archive_samples, 4, 64),
    "IDX pair": Target(read_pair, pair_samples, 10, 2 * 1032),
    "special file": Target(read_special, special_samples, 2, 64),
}
"""All readers, and the commands."""
