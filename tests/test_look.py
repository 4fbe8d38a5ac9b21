"""``look``: what it writes, that it is right where the answer is known, and wrong input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_report_page import Seen

from minicnn import checkpoint, colours, data
from minicnn.app import report
from minicnn.app.command_line import exit_with
from minicnn.app.commands import look, train
from minicnn.inside import Trace, activations
from minicnn.layers import Conv2d, Dense, Dropout, Flatten, ReLU, Sequential

FLAGS = ["--backend", "numpy", "--limit-train", "64", "--limit-test", "10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run, and in it three of its training images as files."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda *_: None)
        train.main(["--model", "lenet5", "--epochs", "2", *FLAGS, "--out", str(folder), "--quiet"])
    images = data.load("fashion-mnist-sample", limit_train=64, limit_test=10, validation=0.1).train
    (folder / "images").mkdir()
    for number, name in enumerate(["<img src=x onerror=alert(1)>", "b"]):
        Image.fromarray(images.x[number][0]).save(folder / "images" / f"{name}.png")
    return folder


def said_to(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    """Exit status, stdout and stderr of the command."""
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: look.main(["--backend", "numpy", *map(str, arguments)]))
    return stop.value.code, *capsys.readouterr()


def test_a_training_image_is_its_own_neighbour_and_all_is_in_one_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status, said, _ = said_to(
        capsys, "--checkpoint", run / "best.safetensors", "--out", out, "--neighbours", 3, run / "images"
    )
    assert status == 0
    names = {f"{number}-{kind}.png" for number in (1, 2) for kind in ("seen", "neighbours", "activations")}
    assert {path.name for path in out.iterdir()} == {"look.html", "filters.png", *names}
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5, path
    assert f"page: {out / 'look.html'}\n" in said
    seen = Seen((out / "look.html").read_text())
    text = " ".join(seen.text.split())
    distances = [float(one) for one in re.findall(r"distance (\d\S*)", text)]
    assert len(distances) == 6
    assert all(first < 1e-3 < second <= third for first, second, third in np.reshape(distances, (2, 3)))
    for told in (
        "before training",
        "epoch 1",
        "epoch 2",
        "this checkpoint",
        "relu2",
        "max_pool2d, 16×5×5",
        "% ",
    ):
        assert told in text, told
    assert "<img src=x onerror=alert(1)>.png" in text
    addresses = [value for _, found in seen.elements for name, value in found.items() if name == "src"]
    assert all(str(address).startswith("data:image/png;base64,") for address in addresses)
    assert not [name for _, found in seen.elements for name in found if name.startswith("on")]


def test_an_unreadable_file_is_named_and_the_others_are_looked_at(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n")
    given = ["--checkpoint", run / "best.safetensors", "--neighbours", 0, "--out", tmp_path / "out"]
    status, _, errors = said_to(capsys, *given, torn, run / "images" / "b.png", "--class", "Bag")
    assert status == 4
    assert f"error: {torn}" in errors
    page = " ".join(Seen((tmp_path / "out" / "look.html").read_text()).text.split())
    assert "What speaks for Bag" in page
    assert "Nearest" not in page
    status, said, _ = said_to(capsys, *given, torn, "--out", tmp_path / "none")
    assert (status, "page" in said) == (4, False)
    assert not (tmp_path / "none").exists()


def test_without_the_training_images_all_else_is_shown(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise data.DataError("fashion-mnist is not here")

    monkeypatch.setattr(data, "load", gone)
    alone = tmp_path / "alone" / "best.safetensors"
    alone.parent.mkdir()
    shutil.copy(run / "best.safetensors", alone)
    given = ["--checkpoint", alone, "--out", tmp_path / "out", run / "images" / "b.png"]
    status, said, _ = said_to(capsys, *given)
    assert status == 0
    assert "Nearest training images are left out: fashion-mnist is not here" in said
    page = (tmp_path / "out" / "look.html").read_text()
    assert "left out: fashion-mnist is not here" in page
    assert "before training" not in page, "the filters of earlier epochs are not there"
    assert said_to(capsys, *given, "--dataset", "digits")[0] == 2, "what the user names must be there"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "Hat"], "[look] --class: expected one of T-shirt/top, "),
        (["--layer", "fc1"], "[grad_cam] layer: expected one of conv1, "),
        (["--dataset", "folder:none"], "none: "),
        (["--neighbours", "-1"], "argument --neighbours: expected a whole number of at least 0"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--checkpoint", run / "best.safetensors", "--out", tmp_path / "out", run / "images" / "b.png"]
    status, _, errors = said_to(capsys, *given, "--quiet", *arguments)
    assert status == 2
    assert errors.startswith(f"error: {message}")
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_too_many_images_and_hostile_weights_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "MOST_IMAGES", 1)
    given = ["--checkpoint", run / "best.safetensors", "--out", tmp_path / "out", run / "images"]
    assert said_to(capsys, *given)[2].endswith("error: expected at most 1 images, got 2\n")
    saved = checkpoint.load(run / "best.safetensors")
    saved.model["conv1.weight"][:] = 3e38
    checkpoint.save(tmp_path / "huge.safetensors", saved)
    huge = ["--checkpoint", tmp_path / "huge.safetensors", run / "images" / "b.png", "--neighbours", "0"]
    errors = said_to(capsys, *huge, "--out", tmp_path / "out")[2]
    assert errors == "error: the model gives an image numbers that are not finite\n"
    monkeypatch.setattr(look, "MOST_MEMORY", 1000)
    assert "expected images whose maps take at most" in said_to(capsys, *given)[2]


def test_what_look_draws_is_not_looked_at(tmp_path: Path) -> None:
    out = tmp_path / "look"
    out.mkdir()
    for path in (tmp_path / "a.png", out / "filters.png"):
        Image.new("L", (4, 4)).save(path)
    assert look._files([tmp_path], out) == [tmp_path / "a.png"]
    assert look._files([out / "filters.png"], out) == [out / "filters.png"], "named, so wanted"


def test_the_strongest_maps_of_each_layer_in_their_order() -> None:
    net = Sequential(
        {"conv": Conv2d(1, 4, 1, bias=False), "relu": ReLU(), "drop": Dropout(0.5), "flatten": Flatten(),
         "fc": Dense(36, 40)},
        backend="numpy",
    )  # fmt: skip
    net.load_state_dict(net.state_dict() | {"conv.weight": np.reshape([2, -9, 1, 3.0], (4, 1, 1, 1))})
    trace = Trace(net, np.ones((1, 1, 3, 3)))
    conv, relu, fc = activations(trace, maps=2)
    assert (conv.name, conv.channels, relu.channels) == ("conv", [1, 3], [0, 3])
    assert (relu.maps[1] == 3).all()
    assert fc.maps[0].shape == (2, 32)
    np.testing.assert_array_equal(fc.maps[0].ravel()[:40], trace.logits[0])
    assert [one.name for one in activations(trace, layers=2)] == ["relu", "fc"]


def test_colours_say_what_they_should() -> None:
    blue, white, red = colours.signed(np.array([[-2.0, 0.0, 2.0]]))[0].astype(int)
    assert blue[2] > blue[0] + 50
    assert white.min() > 240
    assert red[0] > red[2] + 50
    dark, yellow = colours.bright(np.array([[0.0, 5.0]]))[0].astype(int)
    assert dark.sum() < 200 < yellow[0]
    assert (colours.signed(np.zeros((2, 2))) > 240).all()
    assert colours.filter_pixels(np.zeros((3, 2, 2)), 1.0).tolist() == [[[128] * 3] * 2] * 2
    assert colours.enlarged(np.eye(2), (6, 8)).shape == (6, 8)
