"""Metrics against their definitions and torch; plots: every kind of input gives a readable PNG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import metrics, plots


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
