"""What evaluate judges of a folder: the test part of the training, or the whole of one kept apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicnn import checkpoint, data, evaluate
from minicnn.app.commands import train
from minicnn.app.experiment import Experiment
from minicnn.app.known_paths import CONFIG
from minicnn.app.settings import Config
from minicnn.data import DataError
from minicnn.data.record import SplitRecord
from minicnn.files import write_json

SIDE = 12
FLAGS = ["--model", "lenet5", "--backend", "numpy", "--threads", "1", "--validation", "0.25"]


def pictures(
    root: Path, folder: str, count: int, *, seed: int = 0, colour: bool = True, start: int = 0
) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *folder.encode()])
    for i in range(start, start + count):
        values = rng.integers(0, 256, (SIDE, SIDE, 3) if colour else (SIDE, SIDE), np.uint8)
        Image.fromarray(values).save(root / folder / f"{start}-{i}.png")


def pixels(path: Path) -> bytes:
    return np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes()


def learnt(root: Path, file: Path, *flags: str) -> data.Dataset:
    """Write the checkpoint of a model that was just made for this folder; its dataset."""
    config = Config.resolve(vars(train.parse([*FLAGS, "--dataset", f"folder:{root}", *flags])))
    dataset = data.load(
        config.dataset, validation=config.validation, limit_test=config.limit_test, group_by=config.group_by
    )
    checkpoint.save(file, Experiment(config, dataset).checkpoint())
    write_json(file.with_name(CONFIG), asdict(config))  # as a run does; else no folder is read by itself
    return dataset


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path, data.Dataset]:
    """A folder, the checkpoint of a model of it, and the dataset."""
    root, file = tmp_path / "own", tmp_path / "c.safetensors"
    for name in ("cat", "dog"):
        pictures(root, name, 20)
    return root, file, learnt(root, file)


def judge(file: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[dict[str, Any], str]:
    """The report of evaluate, and what it printed as one line."""
    out = file.parent / "report"
    capsys.readouterr()
    evaluate.main(["--checkpoint", str(file), "--backend", "numpy", "--out", str(out), *flags])
    return json.loads((out / "report.json").read_text()), " ".join(capsys.readouterr().out.split())


def test_the_test_part_of_training_is_judged_whatever_was_added(
    own: tuple[Path, Path, data.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    root, file, dataset = own
    before, printed = judge(file, capsys)
    assert f"8 images: the test part of training, in {root}" in printed
    assert before["images"] == len(dataset.test) == 8
    for name in ("cat", "dog", "emu"):
        pictures(root, name, 30, seed=1, start=100)
    after, printed = judge(file, capsys)
    assert after == before
    assert "left out" not in printed
    assert judge(file, capsys, "--dataset", f"folder:{root}/../own")[0] == before


def test_no_training_image_is_decoded(
    own: tuple[Path, Path, data.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    root, file, _ = own
    before, _ = judge(file, capsys)
    names = SplitRecord.of_json(checkpoint.load(file).split).test_files  # type: ignore[union-attr]
    for path in root.rglob("*.png"):
        if path.relative_to(root).as_posix() not in names:
            path.write_bytes(b"damaged")
    assert judge(file, capsys)[0] == before


def test_what_became_of_the_test_images_is_told(
    own: tuple[Path, Path, data.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    root, file, dataset = own
    names = SplitRecord.of_json(checkpoint.load(file).split).test_files  # type: ignore[union-attr]
    (root / names[0]).unlink()
    Image.new("RGB", (SIDE, SIDE)).save(root / names[1])
    learnt_from = {image.tobytes() for image in dataset.train.x}
    trained = next(path for path in sorted(root.rglob("*.png")) if pixels(path) in learnt_from)
    shutil.copy(trained, root / names[2])
    result, printed = judge(file, capsys)
    assert result["images"] == 6
    assert "1 of its 8 images are no longer there" in printed
    assert "1 of them have changed since" in printed
    assert "left out: 1 of 7 images, from which the model learnt" in printed
    shutil.rmtree(root)
    with pytest.raises(DataError, match="expected the folder of the training, got no such folder"):
        judge(file, capsys)


def test_the_whole_of_a_folder_kept_apart_is_judged(
    own: tuple[Path, Path, data.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file, _ = own
    kept = tmp_path / "kept"
    pictures(kept, "cat", 5, seed=2)
    pictures(kept, "dog", 1, seed=2)
    result, printed = judge(file, capsys, "--dataset", f"folder:{kept}")
    assert [row["support"] for row in result["per_class"]] == [5, 1]
    assert f"6 images: the whole of {kept}" in printed
    assert judge(file, capsys, "--dataset", f"folder:{kept}", "--limit-test", "2")[0]["images"] == 2


def test_images_that_were_learnt_from_are_left_out(
    own: tuple[Path, Path, data.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file, dataset = own
    copy = tmp_path / "copy"
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy / path.parent.name / f"other{i}.bmp")
    assert (len(dataset.train), dataset.validation and len(dataset.validation)) == (24, 8)
    result, printed = judge(file, capsys, "--dataset", f"folder:{copy}")
    assert result["images"] == 16
    assert "left out: 24 of 40 images, from which the model learnt" in printed
    assert "8 of them are validation images, which chose the best epoch" in printed
    train_only = tmp_path / "all" / "train"
    learnt(root, file, "--validation", "0")
    learnt_from = {image.tobytes() for image in data.load(f"folder:{root}").train.x}
    for path in copy.rglob("*.bmp"):
        if pixels(path) in learnt_from:
            (train_only / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, train_only / path.parent.name)
    with pytest.raises(DataError, match=r"got 32 that the model learnt from$"):
        judge(file, capsys, "--dataset", f"folder:{train_only}")


def test_a_part_of_a_folder_with_parts_is_judged(
    own: tuple[Path, Path, data.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file, _ = own
    other = tmp_path / "other"
    for part in ("train", "val"):
        pictures(other, f"{part}/cat", 3, seed=3)
        pictures(other, f"{part}/dog", 3, seed=3)
    with pytest.raises(DataError, match="expected a test folder, got train/, val/: name the folder"):
        judge(file, capsys, "--dataset", f"folder:{other}")
    assert f"the whole of {other}/val" in judge(file, capsys, "--dataset", f"folder:{other}/val")[1]
    pictures(other, "Test/dog", 2, seed=3)
    printed = judge(file, capsys, "--dataset", f"folder:{other}")[1]
    assert f"2 images: the whole of {other}/Test" in printed
    assert "no test images of cat" in printed


def test_test_images_alone_are_judged(
    own: tuple[Path, Path, data.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file, _ = own
    pictures(tmp_path / "kept", "cat", 2, seed=7)
    paths = sorted((tmp_path / "kept").rglob("*.png"))
    rows = [f"{path},{name},test" for path, name in zip(paths, ("dog", "cat"), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    x, names = np.stack([np.asarray(Image.open(path)) for path in paths]), ["dog", "cat"]
    np.savez(tmp_path / "a.npz", x_test=x, y_test=[0, 1], class_names=names)
    found = []
    for name in (f"csv:{tmp_path / 't.csv'}", f"npz:{tmp_path / 'a.npz'}"):
        found.append(judge(file, capsys, "--dataset", name)[0])
        assert [row["support"] for row in found[-1]["per_class"]] == [1, 1]
        with pytest.raises(DataError, match="expected training images with labels, got none"):
            data.load(name)
    assert found[0] == found[1]


@pytest.mark.parametrize(("trained", "judged"), [(True, False), (False, True)])
def test_images_are_read_with_the_channels_of_the_model(
    trained: bool, judged: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file = tmp_path / "own", tmp_path / "c.safetensors"
    for name in ("cat", "dog"):
        pictures(root, name, 10, colour=trained)
        pictures(tmp_path / "kept", name, 2, seed=4, colour=judged)
    assert learnt(root, file).test.x.shape[1] == (3 if trained else 1)
    assert judge(file, capsys, "--dataset", f"folder:{tmp_path / 'kept'}")[0]["images"] == 4


def test_a_limit_that_leaves_only_grey_images_is_no_other_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file = tmp_path / "own", tmp_path / "c.safetensors"
    pictures(root, "cat", 10, colour=False)
    pictures(root, "dog", 10)
    learnt(root, file)
    result, _ = judge(file, capsys, "--limit-test", "1")
    assert result["images"] == 1


def test_classes_are_matched_by_name(
    own: tuple[Path, Path, data.Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file, _ = own
    kept = tmp_path / "kept"
    pictures(kept, "dog", 3, seed=5)
    result, printed = judge(file, capsys, "--dataset", f"folder:{kept}")
    assert [row["support"] for row in result["per_class"]] == [0, 3]
    assert "no test images of cat" in printed
    pictures(kept, "emu", 1, seed=5)
    with pytest.raises(DataError, match="expected classes that were learnt, cat, dog, got emu"):
        judge(file, capsys, "--dataset", f"folder:{kept}")
    with pytest.raises(DataError, match=r"digits: expected classes that were learnt, cat, dog, got 0, 1"):
        judge(file, capsys, "--dataset", "digits")


def test_an_older_checkpoint_says_that_it_does_not_know(
    own: tuple[Path, Path, data.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    root, file, _ = own
    saved = checkpoint.load(file)
    saved.split = {}
    checkpoint.save(file, saved)
    result, printed = judge(file, capsys)
    assert result["images"] == 8
    assert f"8 images: a fifth of {root}, split anew as training did it" in printed
    assert "the checkpoint does not say what it learnt from" in printed
    pictures(root, "ape", 3)
    with pytest.raises(DataError, match="expected the classes cat, dog, got ape, cat, dog"):
        judge(file, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "x"}, "split: train: expected 64-bit numbers in base64, got 'x'"),
        ({"test": []}, r"split: test: expected 64-bit numbers in base64, got \[\]"),
        ({"test_files": "a"}, "split: test_files: expected a list of names, got 'a'"),
        ({"more": "a"}, "split: expected test, test_files, train, validation, got more, test"),
    ],
)
def test_a_record_that_is_not_sound_is_refused(
    change: dict[str, Any],
    message: str,
    own: tuple[Path, Path, data.Dataset],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, file, _ = own
    saved = checkpoint.load(file)
    saved.split |= change
    checkpoint.save(file, saved)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        judge(file, capsys)


def test_the_record_is_small(own: tuple[Path, Path, data.Dataset]) -> None:
    saved = checkpoint.load(own[1])
    names = saved.split.pop("test_files")
    assert len(names) == 8
    assert len(json.dumps(saved.split)) < 60 + 12 * 40


def test_a_named_dataset_is_told_from_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.safetensors"
    flags = [*FLAGS, "--limit-train", "60", "--limit-test", "20"]
    config = Config.resolve(vars(train.parse(flags)))
    dataset = data.load(config.dataset, limit_train=60, limit_test=20, validation=config.validation)
    saved = Experiment(config, dataset).checkpoint()
    assert saved.split == {}
    checkpoint.save(file, saved)
    result, printed = judge(file, capsys)
    assert result["images"] == 20
    assert "20 images: the test images of fashion-mnist-sample" in printed
    assert "fingerprint" not in printed
    saved.fingerprint = "other"
    checkpoint.save(file, saved)
    assert (
        "these are not the data of the training: their fingerprint is another one" in judge(file, capsys)[1]
    )
