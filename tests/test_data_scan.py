"""Strangers' folders: whatever is not used is told, and all that is bad is told at once."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.data import DataError, Summary, UnusableImages
from minicnn.data.decode import Work, decode, without_bad
from minicnn.data.facts import is_one_shade
from minicnn.data.leftovers import BEGINNINGS, FILES, FOLDERS
from minicnn.data.scan import (
    AGAIN,
    HIDDEN,
    LEFTOVER,
    NO_CLASS,
    NO_FILE,
    NO_IMAGE,
    NO_PART,
    class_folders,
    list_images,
)

SHADES = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def save(path, form="PNG", turns=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rot90(SHADES, turns)).save(path, form)


@pytest.fixture
def root(tmp_path):
    """Two classes of three images."""
    for name in "ab":
        for i in range(3):
            save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def found(root):
    """The listed files by name, and the summary."""
    summary = Summary()
    listed = list_images(root, class_folders(root, summary), summary)
    return [str(path.relative_to(root)) for path, _ in listed], summary


def passed_over(root):
    _, summary = found(root)
    return {
        why: sorted(str(path.relative_to(root)) for path in paths)
        for why, paths in summary.passed_over.items()
    }


WHOLE = [f"{name}/{i}.png" for name in "ab" for i in range(3)]


@pytest.mark.parametrize(
    ("name", "form"),
    [("x.jfif", "JPEG"), ("x.avif", "PNG"), ("x", "PNG"), ("x.dat", "BMP"), ("x.Tif", "TIFF")],
)
def test_images_are_listed_whatever_they_are_called(root, name, form):
    save(root / "a" / name, form)
    names, summary = found(root)
    assert sorted(names) == sorted([*WHOLE, f"a/{name}"])
    assert not summary.passed_over
    assert len(data.load(f"folder:{root}").train) == 5


def test_a_damaged_file_with_an_image_s_name_is_not_passed_over(root):
    for name in ("x.heic", "x.jxl", "x.png"):
        (root / "a" / name).write_bytes(b"damaged")
    assert sorted(found(root)[0]) == sorted([*WHOLE, "a/x.heic", "a/x.jxl", "a/x.png"])


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
)
def test_folders_of_systems_are_no_classes(root, name):
    save(root / name / "1.png")
    save(root / "a" / name / "2.png")
    assert found(root)[0] == WHOLE
    assert passed_over(root) == {LEFTOVER: sorted([name, f"a/{name}"])}


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "~$0.png"])
def test_files_of_systems_are_passed_over(root, name):
    save(root / "a" / name)
    assert found(root)[0] == WHOLE
    assert passed_over(root) == {LEFTOVER: [f"a/{name}"]}


def test_the_table_of_leftovers_is_in_small_letters():
    for name in (*FOLDERS, *FILES, *BEGINNINGS):
        assert name == name.lower()


def test_what_is_no_image_is_told(root):
    (root / "notes.txt").write_text("beside the classes")
    save(root / "lost.png")
    (root / "b" / "deep").mkdir()
    (root / "b" / "deep" / "readme").write_text("no image")
    save(root / ".secret" / "1.png")
    save(root / "a" / ".secret" / "1.png")
    assert passed_over(root) == {
        NO_CLASS: ["lost.png", "notes.txt"],
        NO_IMAGE: ["b/deep/readme"],
        HIDDEN: [".secret", "a/.secret"],
    }


def test_pipes_and_sockets_are_not_opened(root, monkeypatch):
    os.mkfifo(root / "a" / "pipe.png")
    monkeypatch.chdir(root / "a")  # a socket's name may not be long
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.png")
        assert passed_over(root) == {NO_FILE: ["a/pipe.png", "a/socket.png"]}
        assert found(root)[0] == WHOLE


def test_links_are_followed_to_each_folder_once(root):
    save(root.parent / "elsewhere" / "new.png")
    (root / "a" / "linked").symlink_to(root.parent / "elsewhere")
    (root / "b" / "twice").symlink_to(root.parent / "elsewhere")
    (root / "a" / "loop").symlink_to(".")
    (root / "a" / "above").symlink_to(root.parent)
    (root / "a" / "other").symlink_to(root / "b")
    (root / "a" / "image").symlink_to(root / "b" / "0.png")
    assert sorted(found(root)[0]) == sorted([*WHOLE, "a/image", "a/linked/new.png"])
    assert passed_over(root) == {AGAIN: ["a/above", "a/loop", "a/other", "b/twice"]}


def test_a_class_that_is_a_link_is_read(root):
    (root / "b").rename(root.parent / "elsewhere")
    (root / "b").symlink_to(root.parent / "elsewhere")
    assert found(root)[0] == WHOLE


@pytest.mark.parametrize("target", ["a", ".", ".."])
def test_two_classes_of_one_folder_are_refused(root, target):
    (root / "c").symlink_to(target)
    with pytest.raises(DataError, match=r"c: expected a folder of its own, got a link to .*"):
        found(root)


def test_links_to_nothing_and_to_themselves_are_bad(root):
    (root / "a" / "gone.png").symlink_to("nowhere")
    (root / "a" / "self").symlink_to("self")
    names, summary = found(root)
    assert names == WHOLE
    assert {path.name: why for path, why in summary.bad.items()} == {
        "gone.png": "a link to what is not there",
        "self": "cannot be read: Too many levels of symbolic links",
    }
    with pytest.raises(UnusableImages, match="2 files cannot be used"):
        list_images(root, ["a", "b"])


def test_a_folder_that_cannot_be_read_is_bad(root, monkeypatch):
    save(root / "a" / "closed" / "1.png")
    scandir = os.scandir

    def refuse(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        UnusableImages, match=r"a/closed: cannot be read: Permission denied; --skip-bad leaves it out"
    ):
        data.load(f"folder:{root}")
    assert len(data.load(f"folder:{root}", skip_bad=True).train) == 4
    (root / "closed").mkdir()
    with pytest.raises(
        DataError, match=r"of the class 'closed', got none \(.*closed: cannot be read: Permission"
    ):
        data.load(f"folder:{root}")


def test_names_that_are_not_utf8(root):
    name = os.fsdecode(b"caf\xe9")
    save(root / "a" / name)
    assert f"a/{name}" in found(root)[0]
    for i in range(3):
        save(root / name / f"{i}.png")
    assert name in data.load(f"folder:{root}").class_names


def test_a_class_without_images_says_what_is_there(root):
    (root / "c").mkdir()
    for i in range(3):
        (root / "c" / f"{i}.csv").write_text("1,2")
    with pytest.raises(
        DataError, match=r"c: expected images .*got none \(3 passed over as no image, such as 0\.csv\)"
    ):
        data.load(f"folder:{root}")


def test_what_lies_beside_the_parts_is_told(root):
    for part in ("train", "test"):
        for name in ("a/1.png", "b/1.png"):
            save(root.parent / "parts" / part / name)
    save(root.parent / "parts" / "more" / "1.png")
    (root.parent / "parts" / "Thumbs.db").write_text("")
    summary = data.load(f"folder:{root.parent}/parts").summary
    assert {why: [path.name for path in paths] for why, paths in summary.passed_over.items()} == {
        NO_PART: ["more"],
        LEFTOVER: ["Thumbs.db"],
    }


# ---- bad files -------------------------------------------------------------------------------------


def test_every_bad_file_is_told_at_once(root):
    for name in ("a/x.png", "b/y.jpg", "b/z.heic"):
        (root / name).write_bytes(b"damaged")
    words = (
        r"3 files cannot be used; .*x\.png, .*y\.jpg, .*z\.heic: expected an image, .*; --skip-bad leaves"
    )
    with pytest.raises(UnusableImages, match=words) as error:
        data.load(f"folder:{root}")
    assert sorted(path.name for path in error.value.summary.bad) == ["x.png", "y.jpg", "z.heic"]
    dataset = data.load(f"folder:{root}", skip_bad=True)
    assert len(dataset.train) + len(dataset.test) == 6
    assert sorted(path.name for path in dataset.summary.bad) == ["x.png", "y.jpg", "z.heic"]


def test_a_long_list_of_bad_files_is_cut(root):
    for i in range(50):
        (root / "a" / f"bad{i:02}.png").write_bytes(b"")
    with pytest.raises(UnusableImages, match=r"50 files .*; and 30 more; --skip-bad") as error:
        data.load(f"folder:{root}", limit_train=200)
    assert str(error.value).count(".png") == 20
    assert str(error.value).count("expected an image") == 1
    assert len(error.value.summary.bad) == 50


def test_images_keep_their_labels_when_others_are_left_out(tmp_path):
    for label, name in enumerate("abc"):
        for i in range(6):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            if (label + i) % 3:
                Image.new("L", (4, 4), 100 * label + i).save(path)
            else:
                path.write_bytes(b"")
    dataset = data.load(f"folder:{tmp_path}", skip_bad=True)
    assert len(dataset.train) + len(dataset.test) == 12
    for part in (dataset.train, dataset.test):
        assert (part.x[:, 0, 0, 0] // 100 == part.y).all()


def test_a_class_of_which_nothing_is_left_is_refused(root):
    for i in range(3):
        (root / "b" / f"{i}.png").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=r"b/\d\.png: expected an image of the class 'b' that can be used, got none: expected an ",
    ):
        data.load(f"folder:{root}", skip_bad=True)


def test_without_bad_keeps_the_order(root):
    listed = list_images(root, ["a", "b"])
    (root / "a" / "1.png").write_bytes(b"")
    summary = Summary()
    x = decode(listed, Work(skip_bad=True), summary=summary).x
    assert [str(path.relative_to(root)) for path, _ in without_bad(listed, summary)] == [
        *WHOLE[:1],
        *WHOLE[2:],
    ]
    assert len(x) == 5


# ---- what the files are like -----------------------------------------------------------------------


def test_sizes_and_modes_are_counted(root):
    save(root / "a" / "turned.png", turns=1)
    Image.new("RGBA", (20, 12), "red").save(root / "b" / "red.png")
    summary = data.load(f"folder:{root}", image_size=8).summary
    assert summary.sizes == {(12, 20): 7, (20, 12): 1}
    assert summary.modes == {"L": 7, "RGBA": 1}
    assert [path.name for path in summary.one_shade] == ["red.png"]


def test_different_sizes_are_told_with_the_commonest(root):
    save(root / "a" / "0.png", turns=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 40)).save(root / "b" / "camera.jpg", exif=exif)
    with pytest.raises(UnusableImages, match=r"--image-size N scales all .*there are 20x12: 5, ") as error:
        decode(list_images(root, ["a", "b"]))
    assert error.value.summary.sizes == {(12, 20): 5, (20, 12): 1, (30, 40): 1}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((1, 4, 4), 255), True),
        (np.arange(16).reshape(1, 4, 4), True),
        (np.arange(17)[None, None], False),
        (np.stack([np.full((2, 2), 9), np.full((2, 2), 200)]), True),
        (np.stack([np.full((2, 2), 9), np.array([[0, 0], [0, 255]])]), False),
    ],
)
def test_one_shade(image, expected):
    assert is_one_shade(image[None].astype(np.uint8)).tolist() == [expected]


def test_of_plain_images_nothing_is_asked_but_their_names(root, monkeypatch):
    """A second start over many thousands of files waits for each question to the system."""
    asked = []
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **options: asked.append(str(path)) or real(path, **options)
    )
    assert len(list_images(root, ["a", "b"])) == len(WHOLE)
    assert not [path for path in asked if path.endswith(".png")]
