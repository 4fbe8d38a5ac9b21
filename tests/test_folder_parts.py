"""folder:DIR with parts: which folders are train, validation and test, and what is told of them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.data import DataError
from minicnn.data.facts import digests
from minicnn.data.groups import group_split
from minicnn.data.parts import part_of


class Pictures:
    """Writes pictures, each with pixels of its own, and remembers where each was written."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.files: dict[bytes, str] = {}

    def make(self, folder: str, count: int, name: str = "{}") -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(self.count).integers(0, 256, (4, 5), np.uint8)
            self.count += 1
            file = f"{folder}/{name.format(i)}.png"
            Image.fromarray(pixels).save(self.root / file)
            self.files[pixels.tobytes()] = file

    def names(self, images: data.Images | None) -> set[str]:
        """The files of decoded images."""
        assert images is not None
        return {self.files[image.tobytes()] for image in images.x}

    def load(self, **options: object) -> data.Dataset:
        return data.load(f"folder:{self.root}", **options)  # type: ignore[arg-type]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(tmp_path)


def parts(dataset: data.Dataset) -> tuple[int, int | None, int]:
    held = dataset.validation
    return len(dataset.train), None if held is None else len(held), len(dataset.test)


# ---- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "train_set", "training images"])
@pytest.mark.parametrize("val", ["val", "Valid", "validation", "DEV", "eval", "val-set"])
def test_train_and_validation_folders_are_no_classes(pictures: Pictures, train: str, val: str) -> None:
    for name in ("cat", "dog"):
        pictures.make(f"{train}/{name}", 10)
        pictures.make(f"{val}/{name}", 3)
    dataset = pictures.load()
    assert dataset.class_names == ["cat", "dog"]
    assert parts(dataset) == (16, 6, 4)
    assert all(name.startswith(f"{val}/") for name in pictures.names(dataset.validation))
    assert all(name.startswith(f"{train}/") for name in pictures.names(dataset.test))
    assert dataset.notes == [
        f"training images: {train}/, validation images: {val}/; a fifth of the training images is kept for "
        "the test"
    ] or dataset.notes == [
        f"validation images: {val}/, training images: {train}/; a fifth of the training images is kept for "
        "the test"
    ]


@pytest.mark.parametrize("test", ["test", "Test", "testing", "test_data"])
def test_train_validation_and_test_folders_are_all_used(pictures: Pictures, test: str) -> None:
    for name in ("cat", "dog"):
        for part, count in (("train", 5), ("val", 2), (test, 3)):
            pictures.make(f"{part}/{name}", count)
    pictures.make("masks/cat", 1)
    dataset = pictures.load()
    assert parts(dataset) == (10, 4, 6)
    assert "passed over: masks/" in dataset.notes[0]
    assert parts(pictures.load(validation=0.2)) == (10, 4, 6)
    assert parts(pictures.load(validation=0)) == (10, None, 6)
    assert "passed over: masks/, val/" in pictures.load(validation=0).notes[0]


def test_validation_is_a_share_of_train_where_it_has_no_folder(pictures: Pictures) -> None:
    for name in ("cat", "dog"):
        pictures.make(f"train/{name}", 10)
        pictures.make(f"test/{name}", 3)
    assert parts(pictures.load()) == (20, None, 6)
    dataset = pictures.load(validation=0.2)
    assert parts(dataset) == (16, 4, 6)
    assert "a share of 0.2 of the training images is held out for validation" in dataset.notes[0]


def test_a_train_folder_alone_is_split(pictures: Pictures) -> None:
    for name in ("cat", "dog"):
        pictures.make(f"train/{name}", 10)
    dataset = pictures.load(validation=0.25)
    assert dataset.class_names == ["cat", "dog"]
    assert parts(dataset) == (12, 4, 4)


def test_without_validation_the_validation_folder_is_the_test(pictures: Pictures) -> None:
    for name in ("cat", "dog"):
        pictures.make(f"train/{name}", 4)
        pictures.make(f"val/{name}", 3)
    dataset = pictures.load(validation=0)
    assert parts(dataset) == (8, None, 6)
    assert all(name.startswith("val/") for name in pictures.names(dataset.test))
    assert dataset.notes == ["training images: train/, test images: val/"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/a", "train/b", "val/a", "valid/a"],
            "one folder of validation images, got val/ and valid/",
        ),
        (["Train/a", "training/a", "test/a"], "one folder of train images, got Train/ and training/"),
        (
            ["val/a", "val/b", "test/a", "test/b"],
            "val/, test/ looks like a part of a split: expected a",
        ),
        (["cat", "dog", "test"], "test/ looks like a part of a split: expected a folder train/ beside it"),
        (["cat", "train/a", "train/b"], "train/ holds folders of its own beside classes"),
    ],
)
def test_folders_that_could_mean_two_things_are_refused(
    pictures: Pictures, folders: list[str], message: str
) -> None:
    for folder in folders:
        pictures.make(folder, 3)
    with pytest.raises(DataError, match=message):
        pictures.load()


def test_a_class_of_trains_is_told(pictures: Pictures) -> None:
    for name in ("bus", "train"):
        pictures.make(name, 5)
    dataset = pictures.load()
    assert dataset.class_names == ["bus", "train"]
    assert dataset.notes == ["train/ is taken for a class"]


def test_ordinary_names_are_classes() -> None:
    assert [part_of(name) for name in ("trains", "valve", "tester", "device", "evaluated", "t")] == [
        None
    ] * 6


# ---- classes that are missing, new, or written otherwise ----------------------------------------------


def test_classes_may_be_missing_where_only_is_judged(pictures: Pictures) -> None:
    for name in ("a", "b", "c"):
        pictures.make(f"train/{name}", 4)
    pictures.make("test/c", 2)
    pictures.make("test/a", 0)
    pictures.make("val/b", 1)
    dataset = pictures.load()
    assert dataset.test.y.tolist() == [2, 2]
    assert dataset.validation is not None
    assert dataset.validation.y.tolist() == [1]
    assert dataset.notes[1:] == ["no validation images of a, c", "no test images of a, b"]


def test_a_new_class_is_refused_by_name(pictures: Pictures) -> None:
    for name in ("train/a", "train/b", "test/a", "test/c"):
        pictures.make(name, 2)
    with pytest.raises(DataError, match=r"test: expected classes that were learnt, a, b, got c$"):
        pictures.load()


def test_names_that_look_the_same_are_the_same(pictures: Pictures) -> None:
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for name in (f"train/{composed}", "train/tea", f"test/{taken_apart}", "test/tea"):
        pictures.make(name, 2)
    dataset = pictures.load()
    assert dataset.class_names == [composed, "tea"]
    assert dataset.test.y.tolist() == [0, 0, 1, 1]
    pictures.make(f"train/{taken_apart}", 2)
    with pytest.raises(DataError, match="two class folders have names that look the same: café"):
        pictures.load()


# ---- groups ------------------------------------------------------------------------------------------


def clip(name: str) -> str:
    return name.rsplit("/", 1)[-1].split("_")[0]


def test_the_images_of_a_clip_stay_in_one_part(pictures: Pictures) -> None:
    for label, name in enumerate(("a", "b")):
        for number in range(10):
            pictures.make(name, 4, f"clip{10 * label + number}_{{}}")
    dataset = pictures.load(validation=0.2, group_by=r"(clip\d+)_")
    images = (dataset.train, dataset.validation, dataset.test)
    clips = [{clip(name) for name in pictures.names(part)} for part in images]
    assert [len(one) for one in clips] == [12, 4, 4]
    assert len(set.union(*clips)) == 20
    assert parts(dataset) == (48, 16, 16)
    assert np.bincount(dataset.test.y).tolist() == [8, 8]
    assert dataset.notes == [r"groups by (clip\d+)_: 12 training, 4 validation, 4 test"]
    other = pictures.load(validation=0.2, group_by=r"(clip\d+)_", seed=1)
    assert pictures.names(other.test) != pictures.names(dataset.test)
    torn = pictures.load()
    assert {clip(n) for n in pictures.names(torn.test)} & {clip(n) for n in pictures.names(torn.train)}


def test_the_whole_match_names_a_group_without_parentheses(pictures: Pictures) -> None:
    for name in ("a", "b"):
        for day in range(3):
            pictures.make(f"{name}/day{day}", 3)
    dataset = pictures.load(group_by=r"day\d")
    days = [{name.split("/")[1] for name in pictures.names(p)} for p in (dataset.train, dataset.test)]
    assert not days[0] & days[1]
    assert days[0] | days[1] == {"day0", "day1", "day2"}


def test_groups_that_cannot_be_kept_are_refused(pictures: Pictures) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            pictures.make(f"{part}/{name}", 3, f"{name}clip{{}}_0")
    with pytest.raises(
        DataError, match=r"each group by .* in one part, got aclip0_ among training and test"
    ):
        pictures.load(group_by=r"\w+clip\d_")
    with pytest.raises(DataError, match=r"0\.png: expected a name that --group-by 'frame' matches"):
        pictures.load(group_by="frame")
    with pytest.raises(DataError, match=r"group-by '\(': expected a regular expression: "):
        pictures.load(group_by="(")
    with pytest.raises(DataError, match=r"group-by 'x': expected files with names, .* got digits"):
        data.load("digits", group_by="x")


def test_one_group_cannot_be_split(pictures: Pictures) -> None:
    for name in ("a", "b"):
        pictures.make(name, 3)
    with pytest.raises(DataError, match=r"expected a class of at least 2 training groups by \[ab\]/"):
        pictures.load(group_by="[ab]/")


@pytest.mark.parametrize("seed", range(5))
def test_group_split_keeps_groups_whole_and_shares_near(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.array([f"g{i}" for i in rng.integers(0, 40, 600)])
    of_group = {name: rng.integers(0, 3) for name in np.unique(groups)}
    y = np.array([of_group[name] for name in groups], np.int64)
    rest, held = group_split(y, groups, 0.2, seed)
    assert sorted([*rest, *held]) == list(range(600))
    assert not set(groups[rest]) & set(groups[held])
    shares = np.bincount(y[held], minlength=3) / np.bincount(y, minlength=3)
    assert np.all((shares > 0.1) & (shares < 0.3))


def test_every_class_keeps_a_group_to_learn_from() -> None:
    y = np.array([0, 0, 1, 1, 1, 2], np.int64)
    groups = np.array(["a", "b", "c", "c", "d", "e"])
    rest, held = group_split(y, groups, 0.5, seed=0)
    assert set(y[rest]) == {0, 1, 2}
    assert set(y[held]) == {0, 1}


# ---- the same pixels ----------------------------------------------------------------------------------


def test_images_that_parts_or_classes_share_are_counted(pictures: Pictures) -> None:
    for part in ("train", "val", "test"):
        for name in ("a", "b"):
            pictures.make(f"{part}/{name}", 5)
    root = pictures.root
    assert pictures.load().notes[1:] == []
    for source, copy in (("train/a/0", "test/a/x"), ("train/a/1", "test/b/x"), ("val/b/0", "test/b/y")):
        Image.open(root / f"{source}.png").save(root / f"{copy}.bmp")
    assert pictures.load().notes[1:] == [
        "2 of 13 test images have the pixels of training images",
        "1 of 13 test images have the pixels of validation images",
        "2 images are in a class and, with the same pixels, in another one too",
    ]


def test_equal_pixels_have_equal_digests() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), np.uint8)
    x[2] = x[0]
    found = digests(x)
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 3
    assert digests(x[:0]).shape == (0,)
