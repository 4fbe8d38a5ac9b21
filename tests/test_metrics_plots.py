"""Metrics against their definitions and torch; plots: every kind of input gives a readable PNG."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from minicnn import glyphs, metrics, plots


def random_predictions(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + k)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return logits, labels


def test_report_by_hand() -> None:
    # true 0 0 0 1 1, said 0 0 1 1 1; class 2 is neither seen nor said
    logits = np.eye(3)[[0, 0, 1, 1, 1]] * 10.0
    got = metrics.report(logits, np.array([0, 0, 0, 1, 1]), ["a", "b", "c"])
    assert got["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert got["accuracy"] == pytest.approx(0.8)
    a, b, c = got["per_class"]
    assert a == {
        "class": "a",
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
        "roc_auc": pytest.approx(5 / 6),
        "average_precision": pytest.approx(2 / 3 * 1 + 1 / 3 * 3 / 5),
    }
    assert b == {
        "class": "b",
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "support": 2,
        "roc_auc": pytest.approx(5 / 6),
        "average_precision": pytest.approx(2 / 3),
    }
    assert c == {
        "class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0,
        "roc_auc": None, "average_precision": None,
    }  # fmt: skip
    assert got["macro"]["precision"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert got["macro"]["roc_auc"] == pytest.approx(5 / 6), "the mean over the two classes that have one"
    assert got["top_k"] == {"k": 2, "accuracy": pytest.approx(0.8)}, "c comes before a, as likely as it"
    assert got["weighted"]["recall"] == pytest.approx(0.8)
    assert json.loads(json.dumps(got)) == got


def test_cross_entropy_is_torchs() -> None:
    torch = pytest.importorskip("torch", reason="the oracle is torch")
    logits, labels = random_predictions(50, 7)
    logits[0] *= 1e4
    wide = torch.from_numpy(logits.astype(np.float64))
    expected = torch.nn.functional.cross_entropy(wide, torch.from_numpy(labels)).item()
    assert metrics.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(metrics.softmax(logits), wide.softmax(1).numpy(), rtol=1e-12)


def test_worst_mistakes_come_in_order() -> None:
    logits, labels = random_predictions(200, 4)
    worst = metrics.worst_mistakes(logits, labels, 10)
    probabilities = metrics.softmax(logits)
    assert len(worst) == 10
    assert [c for _, _, c in worst] == sorted((c for _, _, c in worst), reverse=True)
    for row, predicted, confidence in worst:
        assert predicted == logits[row].argmax() != labels[row]
        assert confidence == probabilities[row, predicted]
    assert metrics.worst_mistakes(np.eye(4), np.arange(4), 10) == []


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20, "the picture is empty"
        return image.size


@pytest.mark.parametrize("k", [2, 10, 100])
def test_confusion_matrix_plot(k: int, tmp_path: Path) -> None:
    logits, labels = random_predictions(500, k)
    names = [f"a class with a very long name, number {i}" for i in range(k)]
    plots.confusion(tmp_path / "c.png", metrics.report(logits, labels, names))
    width, height = size_of(tmp_path / "c.png")
    assert 500 < min(width, height) <= max(width, height) < 2500


def test_a_plot_is_dark_where_matplotlibs_settings_are(tmp_path: Path) -> None:
    logits, labels = np.eye(3), np.array([0, 1, 2])
    for style, dark in (("default", False), ("dark_background", True)):
        with matplotlib.style.context(style):
            plots.confusion(tmp_path / "c.png", metrics.report(logits, labels, ["a", "b", "c"]))
        with Image.open(tmp_path / "c.png") as image:
            pixels = np.asarray(image.convert("L"))
        assert (np.median(pixels) < 64) == dark  # a cell without images has the colour of the ground


@pytest.mark.parametrize(("channels", "count"), [(1, 24), (3, 5), (3, 1), (1, 0)])
def test_mistakes_plot(channels: int, count: int, tmp_path: Path) -> None:
    logits, labels = random_predictions(200, 4)
    images = np.random.default_rng(0).integers(0, 256, (200, channels, 12, 12)).astype(np.uint8)
    worst = metrics.worst_mistakes(logits, labels, count)
    plots.mistakes(tmp_path / "m.png", images, labels, worst, ["a", "b", "a long name " * 5, "d"])
    assert min(size_of(tmp_path / "m.png")) > 300


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (96, 3, 3, 3), (1, 2, 1, 1)])
def test_filters_plot(shape: tuple[int, ...], tmp_path: Path) -> None:
    plots.filters(tmp_path / "f.png", np.random.default_rng(1).normal(size=shape), "conv1")
    width, height = size_of(tmp_path / "f.png")
    assert width >= 600
    assert height >= 200


@pytest.mark.parametrize("epochs", [1, 30])
def test_curves_plot(epochs: int, tmp_path: Path) -> None:
    history = [
        {"epoch": e, "train_loss": 1 / e, "test_loss": 1.1 / e, "train_accuracy": 0.9, "test_accuracy": 0.8}
        for e in range(1, epochs + 1)
    ]
    plots.curves(tmp_path / "c.png", history, "lenet5 on data")
    width, height = size_of(tmp_path / "c.png")
    assert width > 2 * height


# ---- names in plots --------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Text]:
    """The texts of each figure that is saved."""
    texts: list[Text] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        texts.extend(one for one in figure.findobj(Text) if isinstance(one, Text))

    monkeypatch.setattr(Figure, "savefig", keep)
    return texts


@pytest.fixture
def two_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """matplotlib finds DejaVu Sans and STIX alone, which come with it."""
    bundled = Path(matplotlib.get_data_path()) / "fonts"
    fonts = [
        entry
        for entry in font_manager.fontManager.ttflist
        if entry.name in ("DejaVu Sans", "STIXGeneral") and Path(entry.fname).is_relative_to(bundled)
    ]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    glyphs._families_of.cache_clear()
    yield
    glyphs._families_of.cache_clear()


STRANGE = [
    "$1 to $5",
    "\\frac{$x_",
    "图片",
    "\x1b[31mred",
    os.fsdecode(b"caf\xe9"),
    "a\nb",
    "\U0001d4d0 script",
    "_hidden",
]
SHOWN = [
    "$1 to $5",
    "\\frac{$x_",
    r"\u56fe\u7247",
    r"\x1b[31mred",
    r"caf\udce9",
    r"a\x0ab",
    "\U0001d4d0 script",
    "_hidden",
]


@pytest.mark.usefixtures("two_fonts")
def test_names_are_drawn_as_plain_text(drawn: list[Text], tmp_path: Path) -> None:
    logits, labels = random_predictions(300, len(STRANGE))
    images = np.zeros((300, 1, 4, 4), np.uint8)
    plots.confusion(tmp_path / "c.png", metrics.report(logits, labels, STRANGE))
    said = [one.get_text() for one in drawn]
    for name in SHOWN:
        assert said.count(name) >= 2, name  # at both axes
    drawn.clear()
    plots.mistakes(tmp_path / "m.png", images, labels, metrics.worst_mistakes(logits, labels, 40), STRANGE)
    said = [one.get_text() for one in drawn]
    for name in SHOWN:
        assert any(text.startswith((f"true: {name}\n", f"said: {name}\n")) for text in said), name
    plots.curves(tmp_path / "v.png", [{"epoch": 1, "train_loss": 1, "train_accuracy": 1}], STRANGE[1])
    plots.grid(tmp_path / "g.png", images[None, :2], ["$a", "图"], "folder:$x$/\x1b[31m")
    plots.filters(tmp_path / "f.png", np.ones((2, 1, 3, 3)), "$conv$\x1b")
    assert {STRANGE[1], "$a", r"\u56fe", r"folder:$x$/\x1b[31m"} <= {one.get_text() for one in drawn}
    assert any(one.get_text().startswith(r"First layer, $conv$\x1b: ") for one in drawn)
    assert not any(one.get_parse_math() for one in drawn)


@pytest.mark.usefixtures("two_fonts")
def test_an_installed_font_is_used_where_the_default_lacks_a_character(
    drawn: list[Text], tmp_path: Path
) -> None:
    plots.curves(tmp_path / "c.png", [{"epoch": 1, "train_loss": 1, "train_accuracy": 1}], "\U0001d4d0")
    (title,) = (one for one in drawn if one.get_text() == "\U0001d4d0")
    assert "STIXGeneral" in title.get_fontfamily()
    assert glyphs.families("plain") == []


def test_no_two_classes_get_the_same_label() -> None:
    long = "the same beginning of a name"
    names = [f"{long} {end}" for end in ("one", "two")]
    assert plots.class_labels(names) == ["the same …name one", "the same …name two"]
    names = [f"{long} {middle} and the same end" for middle in ("one", "two")]
    first, second = plots.class_labels(names)
    assert first.startswith("0: ")
    assert second.startswith("1: ")
    assert plots.class_labels(["a", "b"]) == ["a", "b"]


def test_a_mistake_is_never_certain(drawn: list[Text], tmp_path: Path) -> None:
    images = np.zeros((1, 1, 4, 4), np.uint8)
    plots.mistakes(tmp_path / "m.png", images, np.array([0]), [(0, 1, 1.0)], ["a", "b"])
    assert "true: a\nsaid: b\n>99.9 % sure" in [one.get_text() for one in drawn]


def test_accuracy_is_100_per_cent_only_without_a_mistake(drawn: list[Text], tmp_path: Path) -> None:
    report = metrics.report(np.eye(2), np.arange(2), ["a", "b"])
    plots.confusion(tmp_path / "c.png", report | {"accuracy": 0.99999, "images": 100_000})
    assert ">99.99 % of 100,000 images right" in [one.get_text() for one in drawn]
