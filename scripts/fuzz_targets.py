"""What scripts/fuzz_readers.py tries: each reader, valid files for it, and how they are damaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from minicnn import checkpoint, data, models, recipes, saved_model
from minicnn.app.commands.train import parse
from minicnn.app.settings import Config
from minicnn.data import cifar, idx, svhn
from minicnn.data.images import MOST_PIXELS
from minicnn.pretrained import init_from, read_state

DEFLATE = 1032
"""The most bytes that a byte of deflate can expand to."""

ANY_FILE = 96 << 20
"""Bytes that a reader may take for any file."""

ANY_IMAGE = 20 * MOST_PIXELS
"""Bytes that a reader of images may take for any file: an image of the most pixels in five copies."""


class Sample(NamedTuple):
    """A file, and how a changed content becomes a file again: packed, or with a checksum that is right."""

    suffix: str
    content: bytes
    seal: Callable[[bytes], bytes] = bytes
    valid: bool = True


class Target(NamedTuple):
    """A reader under test."""

    read: Callable[[Path], object]
    samples: Callable[[Path], list[Sample]]
    """Given a folder to write in."""
    share: int
    """Of a hundred inputs."""
    memory_a_byte: int
    """Bytes of memory that each byte of a file justifies."""
    memory_of_any_file: int = ANY_FILE
    """Bytes of memory that a file justifies however small it is."""
    verified: bool = False
    """The reader admits published files only.  It is tried as if the damaged file were one of them, so that
    what stands behind the checksum is seen: errors, hangs and resident memory.  A pickle or MATLAB file may
    then still ask for address space that it never gets; whoever could forge the checksum gains no more."""


# ---- damage -----------------------------------------------------------------------------------------

NUMBERS = (
    0,
    1,
    2,
    127,
    255,
    256,
    32767,
    65535,
    1 << 20,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
)


def mutated(sample: Sample, generator: np.random.Generator) -> bytes:
    """The sample's file after up to four changes, before or after it was sealed."""
    sealed_before = generator.random() < 0.5
    content = bytearray(sample.seal(sample.content) if sealed_before else sample.content)
    for _ in range(generator.integers(5)):
        change = CHANGES[generator.integers(len(CHANGES))]
        change(content, generator)
    return bytes(content) if sealed_before else sample.seal(bytes(content))


def _place(content: bytearray, generator: np.random.Generator) -> int:
    """A position; half of the time among the first 64, where headers are."""
    most = min(len(content), 64) if generator.random() < 0.5 else len(content)
    return int(generator.integers(most + 1))


def flip_bit(content: bytearray, generator: np.random.Generator) -> None:
    """One bit."""
    if content:
        content[min(_place(content, generator), len(content) - 1)] ^= 1 << int(generator.integers(8))


def overwrite(content: bytearray, generator: np.random.Generator) -> None:
    """Up to 8 bytes by random ones."""
    new, at = generator.bytes(int(generator.integers(1, 9))), _place(content, generator)
    content[at : at + len(new)] = new


def set_number(content: bytearray, generator: np.random.Generator) -> None:
    """A number of 1, 2, 4 or 8 bytes, in either order, by one that lengths go wrong at."""
    size, at = 1 << int(generator.integers(4)), _place(content, generator)
    value = NUMBERS[generator.integers(len(NUMBERS))] & ((1 << 8 * size) - 1)
    content[at : at + size] = value.to_bytes(size, "little" if generator.random() < 0.5 else "big")


def cut(content: bytearray, generator: np.random.Generator) -> None:
    """The end."""
    del content[_place(content, generator) :]


def remove(content: bytearray, generator: np.random.Generator) -> None:
    """A piece."""
    at = _place(content, generator)
    del content[at : at + int(generator.integers(1, 33))]


def repeat(content: bytearray, generator: np.random.Generator) -> None:
    """A piece, elsewhere."""
    at = _place(content, generator)
    piece = content[at : at + int(generator.integers(1, 33))]
    to = _place(content, generator)
    content[to:to] = piece


def append(content: bytearray, generator: np.random.Generator) -> None:
    """Random bytes, or zeros by the million."""
    content += generator.bytes(int(generator.integers(1, 65)))
    if generator.random() < 0.02:
        content += bytes(1 << 20)


CHANGES = (flip_bit, flip_bit, overwrite, set_number, set_number, cut, remove, repeat, append)


# ---- IDX, images, CIFAR, SVHN --------------------------------------------------------------------------


def packed(content: bytes) -> bytes:
    """gzip, the same bytes for the same content."""
    return gzip.compress(content, compresslevel=1, mtime=0)


def idx_samples(_: Path) -> list[Sample]:
    images = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape) + images.tobytes()
    return [Sample("", content), Sample(".gz", content, packed)]


def image_samples(_: Path) -> list[Sample]:
    shades = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
    colours = Image.fromarray(np.stack([shades, shades[::-1], shades[:, ::-1]], axis=-1))
    pictures = {
        ".png": [Image.fromarray(shades), colours, colours.convert("P"), colours.convert("RGBA")],
        ".jpg": [Image.fromarray(shades), colours], ".gif": [colours.convert("P")], ".bmp": [colours],
        ".tif": [colours, Image.fromarray(shades)], ".ppm": [colours], ".webp": [colours],
        ".avif": [colours],
    }  # fmt: skip
    samples = []
    for suffix, images in pictures.items():
        for image in images:
            file = io.BytesIO()
            image.save(file, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:]))
            samples.append(Sample(suffix, file.getvalue()))
    return samples


def read_image_folder(path: Path) -> object:
    """The file as the one image of a class, beside a class of whole images."""
    root = path.parent / "images"
    if not root.exists():
        for name in ("whole", "fuzzed"):
            (root / "train" / name).mkdir(parents=True)
            (root / "test" / name).mkdir(parents=True)
            for part in ("train", "test"):
                Image.new("L", (20, 12)).save(root / part / name / "0.png")
    damaged = root / "train" / "fuzzed" / f"1{path.suffix}"
    path.replace(damaged)
    try:
        return data.load(f"folder:{root}")
    finally:
        damaged.replace(path)


def source_samples(folder: Path) -> list[Sample]:
    """A table of paths, an archive of arrays and a tar file, of eight images in two classes each."""
    x, y = np.random.default_rng(0).integers(0, 256, (8, 9, 7, 3), np.uint8), np.arange(8) % 2
    packed, loose, table = io.BytesIO(), io.BytesIO(), ["path,label"]
    np.savez(loose, x=x, y=y)
    np.savez_compressed(packed, x=x, y=y)
    with tarfile.open(folder / "eight.tar", "w") as archive:
        for number, image in enumerate(x):
            Image.fromarray(image).save(folder / f"{number}.png")
            (folder / f"{number}.cls").write_text(str(y[number]))
            archive.add(folder / f"{number}.png", f"{number}.png")
            archive.add(folder / f"{number}.cls", f"{number}.cls")
            table.append(f"{folder / f'{number}.png'},{y[number]}")
    return [
        Sample(".csv", "\n".join(table).encode()), Sample(".npz", loose.getvalue()),
        Sample(".npz", packed.getvalue()), Sample(".tar", (folder / "eight.tar").read_bytes()),
    ]  # fmt: skip


def read_source(path: Path) -> object:
    return data.load(f"{path.suffix[1:]}:{path}", skip_bad=True)


def cifar_samples(_: Path) -> list[Sample]:
    batch = {
        "data": np.arange(2 * 3072, dtype=np.uint16).astype(np.uint8).reshape(2, 3072),
        "labels": [1, 0],
    }
    return [Sample("", pickle.dumps(batch, protocol)) for protocol in (3, 4)]


def read_cifar_batch(path: Path) -> object:
    """Past the checksum, which a damaged file would not pass."""
    return cifar._read_batch(path, _md5(path), "labels", 10)


def svhn_samples(_: Path) -> list[Sample]:
    from scipy.io import savemat

    file = io.BytesIO()
    images = np.arange(32 * 32 * 3 * 2, dtype=np.uint16).astype(np.uint8).reshape(32, 32, 3, 2)
    savemat(file, {"X": images, "y": np.array([[10], [3]], np.uint8)}, do_compression=True)
    return [Sample(".mat", file.getvalue())]


def read_svhn_file(path: Path) -> object:
    """Past the checksum, which a damaged file would not pass."""
    return svhn._read_mat(path, _md5(path))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


# ---- checkpoints, weights, recipes -----------------------------------------------------------------------

ODD = (None, True, -1, 1 << 70, math.inf, math.nan, "", "x" * 999, [], [-1], [None], {}, {"a": []})
SHAPE, CLASSES = (1, 12, 12), 3
EPOCH = {
    "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.5, "test_loss": 0.5, "test_accuracy": 0.5, "lr": 0.1,
    "seconds": 2.5, "images_per_second": 9.0,
}  # fmt: skip


def small_model() -> Any:
    return models.create("lenet5", in_channels=1, num_classes=CLASSES, image_size=12, backend="numpy")


def checkpoint_bytes(where: Path) -> bytes:
    settings = vars(parse(["--model", "lenet5", "--backend", "numpy", "--image-size", "12"]))
    model = small_model()
    slots = [f"{slot}.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in model.named_parameters()]
    state = model.state_dict()
    saved = checkpoint.Checkpoint(
        config=vars(Config.resolve(settings)), class_names=["a", "b", "c"], image_shape=SHAPE,
        mean=[0.3], std=[0.2], fingerprint="0123", epoch=1, history=[EPOCH], best_accuracy=0.5,
        sums={"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}, optimizer_steps=1, model=state,
        optimizer={name: np.zeros_like(state[name.partition(".")[2]]) for name in slots},
    )  # fmt: skip
    checkpoint.save(where / "small.safetensors", saved)
    return (where / "small.safetensors").read_bytes()


def checkpoint_samples(where: Path) -> list[Sample]:
    """Whole files; their metadata alone, sealed with the checksum that fits."""
    content = checkpoint_bytes(where)
    tensors, metadata = checkpoint.read_tensors(where / "small.safetensors")

    def seal(text: bytes) -> bytes:
        from safetensors.numpy import save

        words = text.decode(errors="replace")
        crc = checkpoint._checksum(tensors, words)
        return save(tensors, metadata | {"minicnn": words, "minicnn_crc32": crc})

    state = json.loads(metadata["minicnn"])
    texts = [json.dumps(wrong) for wrong in wrong_states(state)]
    return [
        Sample(".safetensors", content),
        Sample(".safetensors", metadata["minicnn"].encode(), seal),
        *(Sample(".safetensors", text.encode(), seal, valid=False) for text in texts),
    ]


def wrong_states(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Metadata that is JSON, with a value that the tensors do not bear out or that no reader expects."""
    config = state["config"]
    shapes = ([1, 100_000, 100_000], [1 << 30, 12, 12], [1, 12, 13])
    wrong = [state | {"image_shape": shape} for shape in shapes]
    wrong += [state | {"config": config | {"model": name}} for name in models.names()]
    wrong += [state | {key: value} for key in state for value in ODD]
    wrong += [state | {"config": config | {key: value}} for key in config for value in ODD]
    return wrong


def read_checkpoint(path: Path) -> object:
    return saved_model.load_model(path, "numpy")


def weights_samples(_: Path) -> list[Sample]:
    """Files for --init-from: safetensors, and what torch.save writes."""
    import torch
    from safetensors.numpy import save

    state = small_model().state_dict()
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(a) for name, a in state.items()}, file)
    return [Sample(".safetensors", save(state)), Sample(".pt", file.getvalue())]


def read_weights(path: Path) -> object:
    read_state(path)
    return init_from(small_model(), path)


def recipe_samples(_: Path) -> list[Sample]:
    return [Sample(".toml", path.read_bytes()) for path in Path(recipes.__file__).parent.glob("*.toml")]


def read_recipe(path: Path) -> object:
    try:
        return Config.resolve(vars(parse(["--recipe", str(path)])))
    except SystemExit as error:  # the parser has told what is wrong
        raise ValueError(error.code) from None


TARGETS = {
    "IDX": Target(lambda path: idx.read_idx(path, 3), idx_samples, 30, 2 * DEFLATE),
    "image": Target(lambda path: data.read_image(path, channels=None, size=None), image_samples, 24, 64,
                    ANY_IMAGE),
    "image folder": Target(read_image_folder, image_samples, 6, 64, ANY_IMAGE),
    "source": Target(read_source, source_samples, 4, 64, ANY_IMAGE),
    "checkpoint": Target(read_checkpoint, checkpoint_samples, 12, 64),
    "weights": Target(read_weights, weights_samples, 10, 64),
    "CIFAR": Target(read_cifar_batch, cifar_samples, 8, 64, verified=True),
    "SVHN": Target(read_svhn_file, svhn_samples, 4, 4 * DEFLATE, verified=True),
    "recipe": Target(read_recipe, recipe_samples, 2, 64),
}  # fmt: skip
