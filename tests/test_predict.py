"""``predict``: unreadable files, folders, unusual images, and how the answers are told."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicnn import checkpoint, data, models
from minicnn.app import named_images
from minicnn.app.command_line import exit_with
from minicnn.app.commands import predict, train
from minicnn.app.named_images import read_ahead
from minicnn.app.prediction import Brightness
from minicnn.app.settings import Config

CLASSES = ["dark", "grey", "bright"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that has learnt nothing; its training images were dark."""
    net = models.create("lenet5", in_channels=1, num_classes=3, image_size=12, backend="numpy", seed=0)
    saved = checkpoint.Checkpoint(
        config=vars(Config.resolve(vars(train.parse(["--model", "lenet5"])))), class_names=CLASSES,
        image_shape=(1, 12, 12), mean=[0.1], std=[0.25], fingerprint="", model=net.state_dict(),
        sums={"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    checkpoint.save(path, saved)
    return path


def images(folder: Path, *levels: int) -> list[Path]:
    """An image of one level of grey for each number, named after it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{level:03}.png" for level in levels]
    for path, level in zip(paths, levels, strict=True):
        Image.new("L", (12, 12), level).save(path)
    return paths


def run(model: Path, *arguments: object) -> int | str | None:
    """The exit status of the command."""
    given = ["--checkpoint", str(model), "--backend", "numpy", *map(str, arguments)]
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: predict.main(given))
    return stop.value.code


def test_unreadable_files_are_named_and_the_others_answered(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "IMAGES_AT_ONCE", 2)
    first, second, third = images(tmp_path, 10, 20, 30)
    torn, gone, empty = tmp_path / "torn.png", tmp_path / "gone.png", tmp_path / "empty"
    torn.write_bytes(first.read_bytes()[:40])
    empty.mkdir()
    given = [first, torn, gone, second, empty, third]
    assert run(model, *given) == predict.EXIT_UNREADABLE == 4
    said = capsys.readouterr()
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [str(first), str(second), str(third)]
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == [str(torn), str(gone), str(empty)]
    assert run(model, *given, "--json") == 4
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert [entry["image"] for entry in told] == [str(path) for path in given]
    assert [set(entry) for entry in told] == [
        {"image", kind} for kind in ("predictions", "error", "error", "predictions", "error", "predictions")
    ]
    assert [f"error: {entry['error']}" for entry in told if "error" in entry] == errors
    assert run(model, gone) == 4
    assert capsys.readouterr().out == ""
    assert run(model, first, second) == 0


def test_images_of_a_chunk_are_answered_as_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = images(tmp_path, *range(0, 250, 50))

    def told() -> list[dict[str, Any]]:
        assert run(model, *paths, "--json", "--quiet") == 0
        return list(json.loads(capsys.readouterr().out))

    whole = told()
    sizes: list[int] = []
    predict_images = predict.predict_images

    def count(net: Any, x: np.ndarray, *arguments: Any, **options: Any) -> np.ndarray:
        sizes.append(len(x))
        return predict_images(net, x, *arguments, **options)

    monkeypatch.setattr(predict, "IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(predict, "predict_images", count)
    for one, other in zip(told(), whole, strict=True):
        assert one["image"] == other["image"]
        for a, b in zip(one["predictions"], other["predictions"], strict=True):
            assert a["class"] == b["class"]
            assert a["probability"] == pytest.approx(b["probability"], rel=1e-5)
    assert sizes == [2, 2, 1]


def test_a_folder_stands_for_the_images_below_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = images(tmp_path / "z", 2, 1)
    (three,) = images(tmp_path / "a" / "deep", 3)
    images(tmp_path / ".hidden", 4)
    (tmp_path / "notes.txt").write_text("")
    (alone,) = images(tmp_path / "z" / "y", 5)
    assert run(model, alone, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(p) for p in (alone, three, two, one, alone)]


def test_inverted_images_are_noticed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark, bright = images(tmp_path, 20, 235)
    assert run(model, dark, bright, bright) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: 2 of 3 images are far brighter or darker than the training images, whose mean is 0.10 "
        f"({bright} has mean 0.92); --invert turns black on white into white on black"
    ]
    assert run(model, dark, "--json") == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    straight = json.loads(said.out)[0]["predictions"]
    assert run(model, bright, "--json", "--invert") == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert json.loads(said.out)[0]["predictions"] == straight
    assert run(model, bright, "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_other_colours_of_the_same_brightness_are_not_far(tmp_path: Path) -> None:
    brightness = Brightness([0.5] * 3, [0.25] * 3)
    image = np.zeros((3, 4, 4), np.uint8)
    image[0], image[1] = 255, 128  # its mean is 0.5, while each channel's but one is far from that
    brightness.note(tmp_path, image)
    assert brightness.far == 0
    brightness.note(tmp_path, 255 - image // 8)
    assert brightness.far == 1


@pytest.mark.parametrize(
    ("name", "as_they_are", "inverted"), [("fashion-mnist-sample", 0.02, 0.8), ("digits", 0, 0.95)]
)
def test_the_rule_tells_images_from_inverted_ones(name: str, as_they_are: float, inverted: float) -> None:
    dataset = data.load(name, limit_test=300)
    for sign, images in ((False, dataset.test.x), (True, 255 - dataset.test.x)):
        brightness = Brightness(list(dataset.mean), list(dataset.std))
        for image in images:
            brightness.note(Path("x"), image)
        share = brightness.far / brightness.images
        assert share >= inverted if sign else share <= as_they_are


def test_no_answer_looks_certain(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = images(tmp_path, 20)
    monkeypatch.setattr(predict, "predict_images", lambda *_, **__: np.array([[400.0, 0.0, 8.5]]))
    assert run(model, *paths) == 0
    assert capsys.readouterr().out == f"{paths[0]}: dark >99.9 %, bright <0.1 %, grey <0.1 %\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("flags", [[], ["--json"], ["--quiet"]])
def test_the_bar_is_on_stderr_and_the_answers_on_stdout(
    flags: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    paths = images(tmp_path, 20, 30)
    (tmp_path / "torn.png").write_bytes(b"")
    out, err = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert run(model, *paths, tmp_path / "torn.png", *flags) == 4
    assert ("classifying" in err.getvalue()) == (flags != ["--quiet"])
    assert f"error: {tmp_path / 'torn.png'}: " in err.getvalue()
    assert "classifying" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert all(str(path) in out.getvalue() for path in paths)


def test_no_bar_among_answers_in_a_terminal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    (path,) = images(tmp_path, 20)
    assert run(model, path) == 0
    assert "classifying" not in out.getvalue()
    assert f"\n{path}: " in out.getvalue()


def test_a_table_has_a_row_for_each_image(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = images(tmp_path, 10, 20)
    named = tmp_path / 'a,\r "b"\udce9.png'
    first.rename(named)
    torn, out = tmp_path / "torn.png", tmp_path / "answers.csv"
    torn.write_bytes(b"")
    assert run(model, named, torn, second, "--csv", out, "--top", 9, "--reject", 0.999) == 4
    assert capsys.readouterr().out == ""
    with out.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = ("", "_2", "_3")
    columns = [f"{what}{number}" for number in numbers for what in ("class", "probability")]
    assert list(rows[0]) == ["image", *columns, "unsure", "error"]
    assert [row["image"] for row in rows] == [str(named), str(torn), str(second)]
    assert [row["unsure"] for row in rows] == ["yes", "", "yes"]
    assert rows[1]["error"].startswith(str(torn))
    assert rows[1]["class"] == rows[0]["error"] == ""
    assert sum(float(rows[0][f"probability{number}"]) for number in numbers) == pytest.approx(1)
    assert {rows[2][f"class{number}"] for number in numbers} == set(CLASSES)
    assert run(model, second, "--csv", tmp_path / "none" / "answers.csv") == 2
    assert f"cannot write {tmp_path / 'none' / 'answers.csv'}: " in capsys.readouterr().err
    assert run(model, second, "--csv", tmp_path) == 2
    assert f"--csv {tmp_path}: expected a file, got a folder" in capsys.readouterr().err
    assert run(model, second, "--csv", "/dev/null") == 2
    assert "--csv /dev/null: expected a file, got a device or a pipe" in capsys.readouterr().err
    assert run(model, second, "--csv", out, "--json") == 2


def test_json_lines_are_the_entries_of_the_document(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [*images(tmp_path, 10, 20), tmp_path / "gone.png"]
    assert run(model, *paths, "--json") == 4
    document = capsys.readouterr().out
    assert document == json.dumps(json.loads(document), indent=2) + "\n"
    assert run(model, *paths, "--json-lines") == 4
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == json.loads(document)


def test_patterns_and_lists_on_stdin(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = images(tmp_path / "a", 1, 2)
    (three,) = images(tmp_path / "a" / "deep", 3)
    odd = tmp_path / "[1].png"
    two.rename(odd)

    def answered(*arguments: object, stdin: list[Path] | None = None, status: int = 0) -> list[str]:
        listed = b"".join(os.fsencode(path) + b"\r\n" for path in stdin or [])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
        assert run(model, "--json-lines", "--quiet", *arguments) == status
        return [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]

    assert answered(odd, tmp_path / "a" / "*.png") == [str(odd), str(one)]
    assert answered(tmp_path / "a" / "**" / "*.png") == [str(one), str(three)]
    assert answered(tmp_path / "a" / "**") == [str(one), str(three)], "each once, not again by its folder"
    assert answered(tmp_path / "a" / "*") == [str(one), str(three)]
    assert answered(tmp_path / "**" / "dee*") == [str(three)], "a folder that matches, and nothing below it"
    assert answered(tmp_path / "a" / "**" / "[0d]*") == [str(one), str(three)], "a folder, and a file in it"
    assert answered(tmp_path / "*.jpg", status=4) == [str(tmp_path / "*.jpg")]
    listed = [tmp_path / "a" / "deep", odd, tmp_path / "gone.png"]
    assert answered(one, "-", stdin=listed, status=4) == [str(path) for path in (one, three, *listed[1:])]
    assert answered("-", stdin=[]) == []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert run(model, "-", "--json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_images_are_read_ahead_in_parallel_and_told_in_order() -> None:
    begun: list[str] = []
    both = threading.Barrier(2, timeout=30)

    def read(path: str) -> np.ndarray:
        begun.append(path)
        if path in "01":
            both.wait()  # the first two are read at the same time
        if path == "3":
            raise data.DataError("3 is torn")
        return np.full((1, 1, 1), int(path), np.uint8)

    found = read_ahead(map(str, range(1000)), read, readers=2, ahead=5)
    path, image = next(found)
    assert (path, int(np.asarray(image)[0, 0, 0])) == ("0", 0)
    deadline = time.monotonic() + 30
    while len(begun) < 6 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(begun) == 6, "as many as asked for, however many there are"
    rest = [next(found) for _ in range(4)]
    assert [path for path, _ in rest] == ["1", "2", "3", "4"]
    assert [isinstance(image, data.DataError) for _, image in rest] == [False, False, True, False]
    found.close()
    assert len(begun) < 20, "what is not asked for is not read"


def test_of_a_long_list_no_more_than_two_chunks_are_held(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "IMAGES_AT_ONCE", 8)
    (path,) = images(tmp_path, 30)
    listed, asked, told = 200, 0, 0
    most = 0

    def lines() -> Any:
        nonlocal asked
        for _ in range(listed):
            asked += 1
            yield os.fsencode(path) + b"\n"

    def counted(entries: Any) -> bool:
        nonlocal told, most
        for _ in entries:
            told += 1
            most = max(most, asked - told)
        return False

    monkeypatch.setattr(named_images.sys, "stdin", type("Stdin", (), {"buffer": lines()}))
    monkeypatch.setattr(predict, "print_json_lines", counted)
    assert run(model, "-", "--json-lines", "--quiet") == 0
    assert told == listed
    assert 8 <= most <= 2 * 8 + 1
