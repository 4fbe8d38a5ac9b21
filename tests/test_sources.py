"""Images that are listed elsewhere than in folders: tables, NumPy's archives, tar files, Parquet."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import InProcess
from PIL import Image
from written_sources import (
    NAMES,
    WRITERS,
    add,
    as_csv,
    as_npz,
    as_parquet,
    as_small_npz,
    as_tars,
    labels,
    pixels,
)

from minicnn import data, metrics
from minicnn.app import report
from minicnn.app.commands import evaluate, predict, train
from minicnn.checkpoint import load
from minicnn.data import DataError, workers
from minicnn.data.facts import digests
from minicnn.data.npz import scan_npz
from minicnn.data.summary import Summary
from minicnn.data.tables import scan_csv
from minicnn.saved_model import load_model

COUNT, H, W = 12, 10, 14
WITH_PROCESSES = ("test_parts_are_taken_as_they_are",)


@pytest.fixture(autouse=True)
def _in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.originalname not in WITH_PROCESSES:
        monkeypatch.setattr(workers, "ProcessPoolExecutor", InProcess)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """Images of two classes with their labels."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    found = []
    for number in range(COUNT):
        path = root / f"{number:02}.png"
        Image.fromarray(rng.integers(0, 256, (H, W, 3), np.uint8)).save(path)
        found.append((path, number % 2))
    return found


def in_classes(dataset: data.Dataset) -> set[tuple[int, str]]:
    """The digest and the class of each image of all parts."""
    parts = [part for part in (dataset.train, dataset.validation, dataset.test) if part is not None]
    return {
        (int(digest), dataset.class_names[label])
        for part in parts
        for digest, label in zip(digests(part.take(np.arange(len(part)))), part.y, strict=True)
    }


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_source_gives_the_same_images(
    write: Callable[..., str], files: list[tuple[Path, int]], tmp_path: Path
) -> None:
    name = write(files, tmp_path)
    x = pixels(files).transpose(0, 3, 1, 2)
    expected = {(int(d), NAMES[label]) for d, (_, label) in zip(digests(x), files, strict=True)}
    first = data.load(name, validation=0.25)
    assert (len(first.train), first.validation and len(first.validation), len(first.test)) == (8, 2, 2)
    for dataset in (first, data.load(name, validation=0.25, in_memory=0, cache=tmp_path / "cache")):
        assert dataset.class_names == list(NAMES)
        assert in_classes(dataset) == expected
        assert dataset.fingerprint == first.fingerprint


def test_parts_are_taken_as_they_are(files: list[tuple[Path, int]], tmp_path: Path) -> None:
    parts = {"train": files[:6], "val": files[6:8], "test": files[8:]}
    rows = [f"{path},{label},{part}" for part, some in parts.items() for path, label in some]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    arrays = {}
    for part, some in parts.items():
        arrays |= {f"x_{part}": pixels(some), f"y_{part}": labels(some)}
        (tmp_path / part).mkdir()
        as_parquet(some, tmp_path / part)
        (tmp_path / part / "p.parquet").rename(tmp_path / f"{part}-0.parquet")
        as_tars(some, tmp_path / part)
    np.savez(tmp_path / "a.npz", **arrays)
    names = ("csv:t.csv", "npz:a.npz", "parquet:*.parquet", "tar:{train,val,test}/*.tar")
    for name in names:
        kind, _, place = name.partition(":")
        dataset = data.load(f"{kind}:{tmp_path / place}", validation=0.5)
        assert dataset.validation is not None
        assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (6, 2, 4), name
        columns = ["images: column image.bytes, classes: column label"] if kind == "parquet" else []
        assert dataset.notes[1:] == columns
    name = f"parquet:{tmp_path}/*.parquet"
    stored = data.load(name, validation=0.5, in_memory=0, cache=tmp_path / "cache")
    assert stored.fingerprint == data.load(name, validation=0.5).fingerprint
    without = data.load(f"csv:{tmp_path / 't.csv'}", validation=0, limit_train=2)
    assert (len(without.train), without.validation, len(without.test)) == (2, None, 4)


def test_groups_hold_in_every_source(files: list[tuple[Path, int]], tmp_path: Path) -> None:
    dataset = data.load(as_tars(files, tmp_path), group_by=r"s-(\d+)\.tar/")
    tested = {str(path.parent.name) for path in dataset.test.paths or ()}
    learnt = {str(path.parent.name) for path in dataset.train.paths or ()}
    assert tested
    assert not tested & learnt


@pytest.mark.parametrize(
    ("y", "expected"), [(np.arange(6) // 3, ["1", "7"]), (np.array(["7", "1"] * 3), ["7", "1"])]
)
def test_numbers_count_classes_whatever_these_are_called(
    y: np.ndarray, expected: list[str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 2, 2), "u1"), y=y, class_names=["1", "7"])
    found = scan_npz(str(tmp_path / "a.npz"), Summary())
    assert [found.class_names[label] for _, label in found.parts["train"]][2:4] == expected


# ---- what is wrong ----------------------------------------------------------------------------------


def test_bad_rows_of_a_table_are_told_by_their_lines(files: list[tuple[Path, int]], tmp_path: Path) -> None:
    rows = [f"{path},{label}" for path, label in files]
    rows[2:2] = ["only-a-path.png", ",ant", "nowhere.png,0"]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match=r"^3 files cannot be used; .*line 4: expected a label, got none"):
        data.load(f"csv:{tmp_path / 't.csv'}")
    dataset = data.load(f"csv:{tmp_path / 't.csv'}", skip_bad=True)
    assert len(dataset.train) + len(dataset.test) == COUNT
    assert dataset.summary is not None
    assert sorted(path.name for path in dataset.summary.bad) == ["line 4", "line 5", "nowhere.png"]


def test_only_line_ends_end_the_rows_of_a_table(tmp_path: Path) -> None:
    names = ["a\u2028b.png", "a\x85b.png", "a\x0cb.png", "a\x1cb.png", "a\nb.png"]
    rows = "\r\n".join(f'"{name}",{number % 2}' for number, name in enumerate(names))
    (tmp_path / "t.csv").write_bytes(f"path,label\r\n{rows}\r\n".encode())
    summary = Summary()
    found = scan_csv(str(tmp_path / "t.csv"), summary)
    assert [path.name for path, _ in found.parts["train"]] == names
    assert not summary.bad


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", r"line 1: expected the names of the columns, path,label, got 'a,b'"),
        (b"", r"line 1: expected the names"),
        (b"path,label\nx,\xff\n", r"line 2: expected text in UTF-8"),
        (b"path,label\n", r"expected images with labels, got none"),
        (b"path,label\na.png,x\nb.png,x\n", r"expected at least 2 classes, got 1"),
        (b'path,label\n"a.png,x\n', r"expected images with labels, got none"),
        (b"path,label\n\0,x\n", r"expected images with labels, got none"),
    ],
)
def test_tables_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"t\.csv: {message}"):
        data.load(f"csv:{tmp_path / 't.csv'}")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 8, 8))}, r"got no y of train images"),
        ({"z": np.zeros(4)}, r"expected the arrays x and y, .*, got z"),
        ({"x": np.zeros((4, 8, 8)), "y": np.arange(4) % 2}, r"expected uint8 from 0 to 255, got float64"),
        ({"x": np.zeros((4, 3, 8, 3), "u1"), "y": np.arange(4) % 2}, r"both may be channels"),
        ({"x": np.zeros((4, 5, 8, 4), "u1"), "y": np.arange(4) % 2}, r"neither is 1 or 3 channels"),
        ({"x": np.zeros((4, 8, 8), "u1"), "y": np.arange(3)}, r"expected 4 labels, one an image, got 3"),
        (
            {"x": np.zeros((4, 8, 8), "u1"), "y": np.zeros(4)},
            r"expected whole numbers or texts, got float64",
        ),
        ({"x": np.zeros((4, 8, 8), "u1"), "y": np.array([{}] * 4)}, r"got objects, which is unsafe"),
        (
            {"x": np.zeros((4, 8, 8), "u1"), "y": np.arange(4), "class_names": ["a", "b"]},
            r"expected labels from 0 to 1, got 2",
        ),
        (
            {
                "x": np.zeros((4, 8, 8), "u1"),
                "y": np.arange(4) % 2,
                "class_names": ["a", "e\u0301", "\xe9"],
            },
            "expected names of classes that differ, got \xe9 twice",
        ),
    ],
)
def test_archives_of_other_arrays(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz: .*{message}"):
        data.load(f"npz:{tmp_path / 'a.npz'}")


def test_a_class_without_an_image_that_can_be_used_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, name in enumerate(("ant", "ant", "bee", "bee")):
            image = io.BytesIO()
            Image.new("L", (4, 4), number).save(image, "png")
            add(archive, f"{number}.png", image.getvalue() if name == "ant" else b"")
            add(archive, f"{number}.cls", name.encode())
    with pytest.raises(
        DataError, match=r"a\.tar/\d\.png: expected an image of the class 'bee' that can be"
    ):
        data.load(f"tar:{tmp_path / 'a.tar'}", skip_bad=True)


def test_an_archive_is_read_by_what_it_has_not_by_what_it_claims(
    files: list[tuple[Path, int]], tmp_path: Path
) -> None:
    for write in (as_npz, as_small_npz):
        path = Path(write(files, tmp_path).partition(":")[2])
        whole = path.read_bytes()
        if write is as_npz:  # the header of the other one is compressed
            path.write_bytes(whole.replace(b"(12, 10, 14, 3)", b"(99, 10, 14, 3)"))
            with pytest.raises(
                DataError, match=r"x\.npy: truncated or corrupt: expected 41,708 bytes for shape"
            ):
                data.load(f"npz:{path}")
        for length in range(10, len(whole), len(whole) // 9):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"\.npz: "):
                data.load(f"npz:{path}")


def test_hostile_tars(files: list[tuple[Path, int]], tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for image, label in files:
            add(archive, f"../../{image.name}", image.read_bytes())
            add(archive, f"../../{image.stem}.cls", NAMES[label].encode())
        for name, kind in (("l.png", tarfile.SYMTYPE), ("d.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        add(archive, "lonely.png", b"")
    dataset = data.load(f"tar:{path}", skip_bad=True)
    assert len(dataset.train) + len(dataset.test) == COUNT
    assert dataset.summary is not None
    assert {path.name for path in dataset.summary.passed_over["no regular file"]} == {"l.png", "d.png"}
    assert [path.name for path in dataset.summary.bad] == ["lonely.png"]
    assert not (tmp_path.parent / files[0][0].name).exists()
    whole = path.read_bytes()
    path.write_bytes(whole[:1200])
    with pytest.raises(DataError, match=r"a\.tar: "):
        data.load(f"tar:{path}")
    claim = tarfile.TarInfo("long")
    claim.type, claim.size = tarfile.XHDTYPE, 1 << 32
    path.write_bytes(claim.tobuf(tarfile.USTAR_FORMAT) + whole)
    with pytest.raises(DataError, match=r"expected headers of at most 1,048,576 bytes, got 4,294,9"):
        data.load(f"tar:{path}")
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "a.png", b"")
    with pytest.raises(DataError, match=r"expected a tar file, not compressed"):
        data.load(f"tar:{path}")


def test_tables_of_parquet_that_cannot_be_read(
    files: list[tuple[Path, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_parquet(files, tmp_path)
    path = tmp_path / "p.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"p\.parquet: expected an intact Parquet file"):
        data.load(f"parquet:{path}")
    pq.write_table(pa.table({"label": [0, 1]}), path)
    with pytest.raises(DataError, match=r"expected a column of images, .*got label: int64"):
        data.load(f"parquet:{path}")
    images = [image.read_bytes() for image, _ in files]
    texts: list[str | None] = [NAMES[label] for _, label in files]
    pq.write_table(pa.table({"image": [*images, b"", None], "label": [*texts, None, "ant"]}), path)
    dataset = data.load(f"parquet:{path}", skip_bad=True)
    assert dataset.class_names == list(NAMES)
    assert dataset.summary is not None
    assert sorted(path.name for path in dataset.summary.bad) == ["00000012", "00000013"]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"^parquet: needs pyarrow: pip install 'minicnn\[parquet\]'$"):
        data.load(f"parquet:{path}")


# ---- sizes, and whole commands ----------------------------------------------------------------------


def test_ways_of_resizing(tmp_path: Path) -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8], wide[:, 8:] = 100, 200
    Image.fromarray(wide).save(tmp_path / "w.png")
    read = lambda size, way: data.read_image(tmp_path / "w.png", channels=1, size=size, resize=way)[0]  # noqa: E731
    np.testing.assert_array_equal(read(4, "crop"), np.full((4, 4), 100))
    padded = read(12, "pad")
    np.testing.assert_array_equal(padded[4:8], wide)
    assert not padded[:4].any()
    assert not padded[8:].any()
    np.testing.assert_array_equal(read((4, 12), "stretch"), wide)
    assert read((3, 5), "pad").shape == read((3, 5), "crop").shape == (3, 5)
    assert read((1, 1), "pad").shape == (1, 1)
    with pytest.raises(ValueError, match=r"resize: expected one of stretch, crop, pad, got zoom"):
        read(4, "zoom")


def test_commands_share_the_size_and_the_way(
    files: list[tuple[Path, int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "draw", lambda *_: None)
    table = as_csv(files, tmp_path)
    out = tmp_path / "run"
    flags = [
        "--image-size",
        "12",
        "16",
        "--resize",
        "crop",
        "--cache",
        str(tmp_path / "c"),
        "--cache-above",
        "0",
    ]
    train.main(["--dataset", table, "--out", str(out), "--backend", "numpy", "--epochs", "1", *flags])
    assert "3×12×16, 2 classes" in capsys.readouterr().out
    saved = json.loads((out / "config.json").read_text())
    assert (saved["image_size"], saved["resize"]) == ([12, 16], "crop")
    best = ["--checkpoint", str(out / "best.safetensors"), "--backend", "numpy"]
    evaluate.main([*best, *flags[-4:], "--out", str(tmp_path / "report")])
    assert "2 images: the test part of training" in " ".join(capsys.readouterr().out.split())
    first, second = (json.loads((d / "report.json").read_text()) for d in (out, tmp_path / "report"))
    assert first["loss"] == pytest.approx(second["loss"], abs=1e-6)
    train.main(["--resume", "--out", str(out), "--cache", str(tmp_path / "c")])
    assert "done already" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"own --resize crop, got pad"):
        train.main(["--resume", "--out", str(out), "--resize", "pad"])
    with pytest.raises(SystemExit):
        train.main(["--image-size", "1", "2", "3"])
    assert "--image-size: expected one number or two, got 3" in capsys.readouterr().err
    predict.main([*best, "--json", str(files[0][0])])
    answer = json.loads(capsys.readouterr().out)[0]["predictions"]
    checkpoint, model = load_model(out / "best.safetensors", "numpy")
    image = data.read_image(files[0][0], channels=3, size=(12, 16), resize="crop")
    logits = model.predict(data.normalize(image[None], checkpoint.mean, checkpoint.std))
    assert answer[0]["probability"] == pytest.approx(metrics.softmax(logits).max(), abs=1e-5)


def test_a_checkpoint_names_no_folder_to_write_to(
    files: list[tuple[Path, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda *_: None)
    monkeypatch.setenv("MINICNN_CACHE", str(tmp_path / "own"))
    table, planted = as_csv(files, tmp_path), tmp_path / "planted"
    flags = ["--dataset", table, "--image-size", "12", "--cache-above", "0", "--cache", str(planted)]
    train.main([*flags, "--out", str(tmp_path / "run"), "--backend", "numpy", "--epochs", "1"])
    best = load(tmp_path / "run" / "best.safetensors")
    assert best.config["cache"] == "planted"
    train.main(["--resume", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "own").exists()  # it has the images already
    best_file = str(tmp_path / "run" / "best.safetensors")
    above = ["--backend", "numpy", "--cache-above", "0"]
    evaluate.main(["--checkpoint", best_file, *above])
    assert not (tmp_path / "own").exists()
    assert len([path for path in planted.iterdir() if path.is_dir()]) == 2
    alone = shutil.copy(tmp_path / "run" / "checkpoint.safetensors", tmp_path / "alone.safetensors")
    evaluate.main(["--checkpoint", str(alone), "--dataset", table, *above])
    assert len([path for path in (tmp_path / "own" / "images").iterdir() if path.is_dir()]) == 1
    shutil.rmtree(planted)
    train.main(["--resume", "--out", str(tmp_path / "run")])
    evaluate.main(["--checkpoint", best_file, *above])
    assert not planted.exists()
    assert len([path for path in (tmp_path / "own" / "images").iterdir() if path.is_dir()]) == 2
