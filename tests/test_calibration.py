"""Calibration against scikit-learn and cases known by hand; a temperature from training to prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve

from minicnn import calibration, checkpoint, data, evaluate, metrics, plots_judging, predict, train
from minicnn.app.command_line import exit_with
from minicnn.saved_model import load_model

FLAGS = [
    "--model", "lenet5", "--backend", "numpy", "--threads", "1", "--epochs", "3", "--batch-size", "16",
    "--limit-train", "200", "--limit-test", "60", "--lr", "0.005", "--schedule", "constant",
]  # fmt: skip


def sampled(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities that these logits stand for."""
    rng = np.random.default_rng(k)
    logits = 2 * rng.normal(size=(n, k))
    return logits, (logits + rng.gumbel(size=(n, k))).argmax(axis=1)


# ---- measured ----------------------------------------------------------------------------------------


def test_bins_are_scikit_learns() -> None:
    logits, labels = sampled(2000, 6)
    bins = [one for one in calibration.reliability(logits, labels) if one["images"]]
    right, sure = logits.argmax(axis=1) == labels, metrics.softmax(logits).max(axis=1)
    accuracy, confidence = calibration_curve(right, sure, n_bins=calibration.BINS)
    np.testing.assert_allclose([one["accuracy"] for one in bins], accuracy, rtol=1e-12)
    np.testing.assert_allclose([one["confidence"] for one in bins], confidence, rtol=1e-12)
    assert sum(one["images"] for one in bins) == 2000


def test_error_by_hand() -> None:
    """Of four images with confidence 0.8 two are right; the fifth has confidence 0.6 and is right."""
    logits = np.log([[0.8, 0.2]] * 4 + [[0.4, 0.6]])
    found = calibration.measure(logits, np.array([0, 0, 1, 1, 1]))
    assert found["expected_calibration_error"] == pytest.approx(4 / 5 * 0.3 + 1 / 5 * 0.4)
    expected = -np.log([0.8, 0.8, 0.2, 0.2, 0.6]).mean()
    assert found["negative_log_likelihood"] == pytest.approx(expected)
    filled = [one for one in found["bins"] if one["images"]]
    assert [(one["images"], one["accuracy"]) for one in filled] == [(1, 1.0), (4, 0.5)]
    assert all((one["accuracy"] is None) == (one["images"] == 0) for one in found["bins"])
    json.dumps(found, allow_nan=False)


def test_edges_of_bins_belong_to_the_lower_one() -> None:
    """Confidence 1 is in the last bin, and 0.6, which is an edge of 15 bins, in the ninth."""
    logits = np.array([[1000.0, 0.0], [np.log(0.6), np.log(0.4)]])
    bins = calibration.reliability(logits, np.array([0, 0]))
    assert [number for number, one in enumerate(bins) if one["images"]] == [8, 14]


def test_coverage_by_hand() -> None:
    logits = np.log([[0.85, 0.15], [0.92, 0.08], [0.3, 0.7], [0.45, 0.55]])
    kept = calibration.coverage(logits, np.array([1, 0, 1, 1]))
    assert [(one["threshold"], one["images"], one["coverage"], one["accuracy"]) for one in kept] == [
        (0.5, 4, 1.0, 0.75), (0.8, 2, 0.5, 0.5), (0.9, 1, 0.25, 1.0), (0.95, 0, 0.0, None),
        (0.99, 0, 0.0, None),
    ]  # fmt: skip


# ---- fitted ------------------------------------------------------------------------------------------


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its logits already."""

    def fit(self, _: np.ndarray, y: np.ndarray) -> Given:
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[x.argmax(axis=1)]


@pytest.mark.parametrize("factor", [0.2, 1, 3])
def test_temperature_is_scikit_learns(factor: float) -> None:
    pytest.importorskip("sklearn", minversion="1.8", reason="older scikit-learns fit no temperature")
    from sklearn.frozen import FrozenEstimator

    logits, labels = sampled(1500, 4)
    logits *= factor
    fitted = CalibratedClassifierCV(FrozenEstimator(Given().fit(logits, labels)), method="temperature")
    expected = 1 / fitted.fit(logits, labels).calibrated_classifiers_[0].calibrators[0].beta_
    assert calibration.fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(factor, rel=0.1), (
        "labels were drawn from the logits without the factor"
    )


@pytest.mark.parametrize(("logit", "right"), [(5.0, 0.8), (0.1, 0.9), (2.0, 0.55)])
def test_temperature_by_hand(logit: float, right: float) -> None:
    """If all logits are (a, 0) and a share q is right, then T = a / log(q / (1 - q))."""
    labels = (np.arange(200) >= round(200 * right)).astype(np.int64)
    logits = np.tile([logit, 0.0], (200, 1))
    temperature = calibration.fit_temperature(logits, labels)
    assert temperature == pytest.approx(logit / np.log(right / (1 - right)), rel=1e-7)


def test_temperature_lowers_the_likelihood_and_keeps_the_answers() -> None:
    logits, labels = sampled(500, 7)
    logits = (4 * logits).astype(np.float32)
    temperature = calibration.fit_temperature(logits, labels)
    best = metrics.cross_entropy(calibration.scaled(logits, temperature), labels)
    for other in (1.0, 0.99 * temperature, 1.01 * temperature):
        assert metrics.cross_entropy(calibration.scaled(logits, other), labels) > best
    answers = calibration.scaled(logits, temperature).argmax(axis=1)
    np.testing.assert_array_equal(answers, logits.argmax(axis=1))


def test_temperature_where_the_likelihood_has_no_best_one() -> None:
    assert calibration.fit_temperature(np.eye(3) * 5, np.arange(3)) == 1.0, "all are right"
    assert calibration.fit_temperature(np.eye(3) * 5, np.array([1, 2, 0])) == calibration.HIGHEST


# ---- drawn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [None, 2.5])
def test_reliability_plot(temperature: float | None, tmp_path: Path) -> None:
    logits, labels = sampled(300, 100)
    found = calibration.measure(logits, labels)
    report = {"calibration": found, "uncalibrated": temperature and found, "temperature": temperature}
    plots_judging.reliability(tmp_path / "r.png", report)
    image = data.read_image(tmp_path / "r.png", channels=3, size=None)
    assert len(np.unique(image.reshape(3, -1), axis=1).T) > 20, "the picture is empty"
    assert (image.shape[2] > 1000) == (temperature is not None), "two diagrams side by side, or one"


# ---- from training to prediction ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "run"
    train.main([*FLAGS, "--test-every", "1", "--temperature", "--out", str(out)])
    return out


def test_each_epoch_has_the_temperature_of_its_weights(run: Path) -> None:
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len({entry["temperature"] for entry in history}) == len(history) == 3
    for name in ("best", "checkpoint"):
        saved = checkpoint.load(run / f"{name}.safetensors")
        assert saved.temperature == history[saved.epoch - 1]["temperature"]


def test_report_is_of_the_scaled_logits(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    best = checkpoint.load(run / "best.safetensors").history[-1]
    assert report["temperature"] == best["temperature"]
    assert report["uncalibrated"]["negative_log_likelihood"] == best["test_loss"]
    assert report["calibration"]["negative_log_likelihood"] == report["loss"] != best["test_loss"]
    assert report["accuracy"] == best["test_accuracy"], "a temperature changes no answer"
    assert [row["threshold"] for row in report["reject"]] == [0.5, 0.8, 0.9, 0.95, 0.99]


def test_evaluate_uses_the_temperature(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "checkpoint.safetensors"
    evaluate.main(["--checkpoint", str(file), "--backend", "numpy", "--out", str(tmp_path)])
    there, here = (json.loads((folder / "report.json").read_text()) for folder in (run, tmp_path))
    assert here == there
    printed = capsys.readouterr().out
    for name, words in (("uncalibrated", "without temperature"), ("calibration", "with temperature ")):
        error = 100 * here[name]["expected_calibration_error"]
        (line,) = (line for line in printed.splitlines() if line.startswith(words))
        assert f"expected calibration error {error:.2f} %" in line
    assert f"with temperature {here['temperature']:.3f}: " in printed
    assert "accuracy on them" in printed


def save_image(folder: Path) -> tuple[Path, np.ndarray]:
    from PIL import Image

    image = data.load("fashion-mnist-sample").test.x[0]
    Image.fromarray(image[0]).save(folder / "x.png")
    return folder / "x.png", image


def test_predict_uses_the_temperature(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, image = save_image(tmp_path)
    file = run / "best.safetensors"
    predict.main(["--checkpoint", str(file), str(path), "--json", "--top", "10", "--backend", "numpy"])
    printed = capsys.readouterr()
    (answer,) = json.loads(printed.out)
    saved, model = load_model(file, "numpy")
    assert f"temperature: {saved.temperature:.3f}" in printed.err
    logits = model.predict(data.normalize(image[None], saved.mean, saved.std))
    expected = np.sort(metrics.softmax(logits / saved.temperature)[0])[::-1]
    got = [one["probability"] for one in answer["predictions"]]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert not np.allclose(got, np.sort(metrics.softmax(logits)[0])[::-1], rtol=1e-3)


def test_predict_rejects_what_it_is_unsure_of(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = save_image(tmp_path)
    arguments = ["--checkpoint", str(run / "best.safetensors"), str(path), "--backend", "numpy"]

    def said(*flags: str) -> str:
        predict.main([*arguments, *flags])
        return capsys.readouterr().out

    plain = said()
    (answer,) = json.loads(said("--json"))
    assert set(answer) == {"image", "predictions"}
    sure = answer["predictions"][0]["probability"]
    for reject, unsure in ((sure - 1e-6, False), (sure, False), (sure + 1e-6, True)):
        assert said("--reject", repr(reject)) == (f"{path}: unsure\n" if unsure else plain)
        assert json.loads(said("--reject", repr(reject), "--json")) == [answer | {"unsure": unsure}]


def error_of(command: Callable[[list[str]], None], arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: command(arguments))
    return stop.value.code


def test_a_temperature_needs_validation_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(train.main, [*FLAGS, "--validation=0", "--temperature", f"--out={tmp_path}/r"]) == 2
    message = "--temperature: expected validation images, got none"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "r").exists()


def test_a_threshold_is_a_probability(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", str(run / "best.safetensors"), "x.png", "--reject", "80"]
    assert error_of(predict.main, arguments) == 2
    expected = "argument --reject: expected a number of at least 0 and below 1, got 80"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("value", [0, -1.0, "2", True, [1.0]])
def test_a_checkpoint_with_another_temperature_is_refused(value: object, run: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(run / "best.safetensors")
    history = [*saved.history[:-1], saved.history[-1] | {"temperature": value}]
    checkpoint.save(tmp_path / "c.safetensors", replace(saved, history=history))
    with pytest.raises(checkpoint.CheckpointError, match=r"temperature: expected a"):
        checkpoint.load(tmp_path / "c.safetensors")
