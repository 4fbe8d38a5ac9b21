"""report.html: one file that fetches nothing, says the report's figures, and runs no stranger's names."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minicnn.app import pages, provenance, report
from minicnn.app.commands import train
from minicnn.app.pages import report_page
from minicnn.app.pages.charts import line_chart
from minicnn.app.pages.report_page import About
from minicnn.app.settings import Config
from minicnn.backends import get_backend

HOSTILE = ["<script>alert(1)</script>", 'a" onload="x', "{{ 7 * 7 }}", "\u202egpj.exe\x1b[31m", "café"]


class Seen(HTMLParser):
    """The elements of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._inside = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text = f"{self.text} {data}"


def settings(*flags: str) -> dict[str, Any]:
    return vars(Config.resolve(vars(train.parse(["--backend", "numpy", *flags]))))


def made(
    path: Path, names: list[str], history: list[dict[str, Any]], **about: Any
) -> tuple[Seen, dict[str, Any]]:
    """The page of random answers for 6 images of each class, and the report that it is of."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(names)), 6)
    logits = generator.normal(size=(len(labels), len(names)))
    model: Any = SimpleNamespace(backend=SimpleNamespace(label="numpy"), precision="float32")
    found = report.make(model, logits, labels, names, 1.5)
    image = generator.integers(0, 256, (1, 300, 10), np.uint8)
    computed = provenance.about(get_backend("numpy"))
    told = {"settings": settings(), "computed": computed, "tested": "Tested.", "history": history} | about
    report_page.write(path, found, [(image, 0, 1, 0.99999)], About(**told))
    return Seen(path.read_text(encoding="utf-8")), found


def entry(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch, "train_loss": 1 / epoch, "train_accuracy": 1 - 1 / epoch, "lr": 0.1, "seconds": 1.5,
        **({"test_loss": 0.5, "test_accuracy": 0.25} if epoch == 2 else {}),
    }  # fmt: skip


def test_a_page_fetches_nothing_and_runs_no_names(tmp_path: Path) -> None:
    filters = (HOSTILE[0], np.ones((70, 3, 3, 3), np.float32))
    seen, _ = made(
        tmp_path / "report.html", HOSTILE, [entry(1), entry(2)], filters=filters, best_epoch=2,
        settings=settings() | {"dataset": f"folder:{HOSTILE[1]}"}, tested=HOSTILE[0],
    )  # fmt: skip
    tags = [tag for tag, _ in seen.elements]
    assert tags.count("script") == tags.count("style") == 1
    assert {"link", "iframe", "object", "base"}.isdisjoint(tags)
    attributes = [(name, value or "") for _, found in seen.elements for name, value in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    addresses = [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
    assert len(addresses) == 1 + report_page.FILTERS
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    (policy,) = [value for name, value in attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "url(" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in HOSTILE[:3]:
        assert name in seen.text
    assert "\\u202egpj.exe\\x1b[31m" in seen.text
    assert "\u202e" not in seen.text


def test_the_page_says_what_the_report_says(tmp_path: Path) -> None:
    seen, found = made(tmp_path / "report.html", ["cat", "dog", "owl"], [entry(1), entry(2), entry(3)])
    rows = [attributes for tag, attributes in seen.elements if tag == "td" and "data-n" in attributes]
    counts = [int(row["data-n"] or 0) for row in rows]
    assert counts == np.ravel(found["confusion_matrix"]).tolist()
    right = [count for row, count in zip(rows, counts, strict=True) if row["class"].split()[0] == "right"]
    assert sum(right) == round(found["accuracy"] * 18)
    totals = [attributes["data-total"] for tag, attributes in seen.elements if "data-total" in attributes]
    assert totals == ["6", "6", "6"]
    for said in (
        f"{100 * found['accuracy']:.2f} %", f"{found['loss']:.4f}", "1.500", "without temperature",
        ">99.9 % sure", "epoch 3, train: 0.3333", "epoch 2, test: 25", "numpy, float32",
    ):  # fmt: skip
        assert said in " ".join(seen.text.split()), said
    most = max(
        (count, i, j)
        for i, row in enumerate(found["confusion_matrix"])
        for j, count in enumerate(row)
        if i != j
    )
    assert f"{most[0]} of 6 images" in " ".join(seen.text.split())
    assert len([tag for tag, _ in seen.elements if tag == "svg"]) == 3


def test_the_settings_name_what_was_not_the_default_and_no_folder(tmp_path: Path) -> None:
    given = ["--optimizer", "sgd", "--epochs", "7", "--image-size", "20", "30", "--temperature"]
    given += ["--dataset", "folder:/home/me/my pictures"]
    seen, _ = made(tmp_path / "report.html", ["cat", "dog"], [], settings=settings(*given))
    (command,) = re.findall(r"minicnn train.*", seen.text)
    assert command.strip() == (
        "minicnn train --dataset 'folder:my pictures' --image-size 20 30 --backend numpy --epochs 7 "
        "--optimizer sgd --temperature"
    )
    assert len([1 for _, attributes in seen.elements if attributes.get("class") == "changed"]) == 6
    assert "/home/me" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("classes", "cells"), [(40, 1600), (101, 0)])
def test_many_classes_have_a_matrix_without_numbers_or_none(
    classes: int, cells: int, tmp_path: Path
) -> None:
    seen, _ = made(tmp_path / "report.html", [f"class {i}" for i in range(classes)], [])
    assert len([1 for _, attributes in seen.elements if "data-n" in attributes]) == cells
    assert "Most frequent mistakes" in seen.text
    assert (tmp_path / "report.html").stat().st_size < 1e6


def test_lines_lie_in_their_field() -> None:
    chart = line_chart("loss", "epoch", {"a": [(1, 5.0)], "b": [(1, 5.0)]}, mark=1)
    (point,) = chart.lines["a"]
    assert chart.left < point.x == chart.mark < chart.right
    assert chart.top <= point.y <= chart.bottom
    chart = line_chart("loss", "epoch", {"a": [(x, 1e-9 * x) for x in range(1, 300)]})
    ys = [point.y for point in chart.lines["a"]]
    assert chart.top <= min(ys) < max(ys) <= chart.bottom
    assert ys == sorted(ys, reverse=True), "upwards, y falls"
    assert [tick.text for tick in chart.x_ticks][:2] == ["50", "100"]


def test_a_large_picture_is_made_smaller() -> None:
    assert len(pages.picture(np.zeros((900, 600, 3), np.uint8))) < 3000
