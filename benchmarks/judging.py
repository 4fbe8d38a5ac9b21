"""The generated sections of docs/report.md, from the result of scripts/report_example.py."""

from __future__ import annotations

from results import Result, table, where


def report_classes(result: Result) -> str:
    """The table by class, as a run prints it."""
    report = result["report"]
    rows = [["class", "precision", "recall", "F1", "ROC AUC", "average precision", "images"]]
    rows += [
        [row["class"], *_percent(row), *_ranking(row), str(row["support"])] for row in report["per_class"]
    ]
    rows.append(["macro average", *_percent(report["macro"]), *_ranking(report["macro"]), ""])
    rows.append(["weighted average", *_percent(report["weighted"]), "", "", ""])
    top = report["top_k"]
    whole = (
        f"Accuracy {100 * report['accuracy']:.2f} %, top-{top['k']} accuracy "
        f"{100 * top['accuracy']:.2f} %, loss {report['loss']:.4f}."
    )
    command = f"`{report['command']}`"
    return f"{table(rows)}\n\n{whole}\n\n{command}, by `scripts/report_example.py` on {where(result)}."


def report_calibration(result: Result) -> str:
    """Calibration without and with the temperature."""
    report = result["report"]
    rows = [["", "expected calibration error", "negative log-likelihood"]]
    for name, key in (
        ("without temperature", "uncalibrated"),
        (f"with temperature {report['temperature']:.3f}", "calibration"),
    ):
        found = report[key]
        error = f"{100 * found['expected_calibration_error']:.2f} %"
        rows.append([name, error, f"{found['negative_log_likelihood']:.4f}"])
    return table(rows)


def report_coverage(result: Result) -> str:
    """What is left when less confident answers are rejected."""
    rows = [["confidence from", "images kept", "of all", "accuracy on them"]]
    for row in result["report"]["reject"]:
        accuracy = "none" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
        share = f"{100 * row['coverage']:.2f} %"
        rows.append([f"{100 * row['threshold']:g} %", f"{row['images']:,}", share, accuracy])
    return table(rows)


def report_mislabels(result: Result) -> str:
    """How many planted labels were found, and how far down the list one has to look."""
    found = result["mislabels"]
    rows = [["looked at", "images", "planted labels among them"]]
    rows += [[f"the first {n}", n, str(count)] for n, count in found["planted among the first"].items()]
    rows.append(["all confident ones", str(found["confident"]), str(found["planted among the confident"])])
    every = str(found["planted among the contradicted"])
    rows.append(["all contradicted ones", str(found["contradicted"]), every])
    planted = f"{found['planted']} of {found['images']:,} labels were planted"
    return f"{table(rows)}\n\n`{found['command']}`; {planted}."


def _percent(scores: Result) -> list[str]:
    return [f"{100 * scores[key]:.2f} %" for key in ("precision", "recall", "f1")]


def _ranking(scores: Result) -> list[str]:
    values = (scores["roc_auc"], scores["average_precision"])
    return ["none" if value is None else f"{value:.4f}" for value in values]
