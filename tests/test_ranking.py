"""Ranking scores against scikit-learn's own calls; what is not defined is None, never NaN."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from minicnn import metrics, ranking


def predictions(n: int, k: int, seen: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n,k) and labels of the first ``seen`` classes."""
    rng = np.random.default_rng(k)
    labels = rng.integers(0, seen, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += 1
    return logits, labels


@pytest.mark.parametrize(("k", "top"), [(3, 2), (4, 3), (5, 4), (6, 5), (100, 5)])
def test_scores_are_scikit_learns(k: int, top: int) -> None:
    logits, labels = predictions(1500, k, k)
    probabilities = metrics.softmax(logits)
    report = metrics.report(logits, labels, list(map(str, range(k))))
    expected = top_k_accuracy_score(labels, probabilities, k=top, labels=range(k))
    assert report["top_k"] == {"k": top, "accuracy": expected}
    expected = roc_auc_score(labels, probabilities, multi_class="ovr")
    assert report["macro"]["roc_auc"] == pytest.approx(expected, rel=1e-12)
    each = average_precision_score(np.eye(k)[labels], probabilities, average=None)
    assert [row["average_precision"] for row in report["per_class"]] == pytest.approx(list(each))
    assert report["macro"]["average_precision"] == pytest.approx(each.mean())


def test_two_classes_are_ranked_by_the_probability_of_each() -> None:
    logits, labels = predictions(200, 2, 2)
    probabilities = metrics.softmax(logits)
    expected = roc_auc_score(labels, probabilities[:, 1])
    assert [one["roc_auc"] for one in ranking.one_vs_rest(probabilities, labels)] == [
        pytest.approx(expected),
        pytest.approx(expected),
    ]
    assert ranking.top_k(probabilities, labels) == {"k": 1, "accuracy": metrics.accuracy(logits, labels)}


@pytest.mark.parametrize(("k", "seen", "defined"), [(7, 2, 2), (7, 1, 0), (2, 1, 0)])
def test_a_class_without_images_or_with_all_has_no_score(k: int, seen: int, defined: int) -> None:
    logits, labels = predictions(60, k, seen)
    report = metrics.report(logits, labels, list(map(str, range(k))))
    for score in ("roc_auc", "average_precision"):
        scores = [row[score] for row in report["per_class"]]
        assert [value is not None for value in scores] == [i < defined for i in range(k)]
        assert report["macro"][score] == (pytest.approx(np.mean(scores[:defined])) if defined else None)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_single_class_has_no_top_k() -> None:
    assert ranking.top_k(np.ones((4, 1)), np.zeros(4, np.int64)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits, labels = predictions(10, 3, 3)
    logits[[2, 4], 1] = value
    with pytest.raises(
        ValueError, match=r"^logits: expected finite numbers, got others for 2 of 10 images$"
    ):
        metrics.report(logits, labels, ["a", "b", "c"])
