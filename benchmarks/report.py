"""Write the README's figures from the saved results, so that nobody types a number.

python benchmarks/report.py            rewrites README.md between its markers
python benchmarks/report.py --check    fails if that would change it
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from paired import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->"

Result = dict[str, Any]


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the heading."""
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def where(result: Result) -> str:
    at = result["machine"]
    return f"{at['cpu']}, {at['threads']} threads, torch {at['torch']}, commit {at['commit']}"


def cpp_steps(result: Result) -> str:
    rows = [["net", "phase", "minicnn cpp, ms", "best PyTorch, ms", "which", "ratio"]]
    for phase in ("training", "inference"):
        for net, r in result[phase].items():
            ms = r["milliseconds"]
            best = r["best torch"]
            ratio = f"**{r['best torch / minicnn']}**"
            rows.append([net, phase, f"{ms['minicnn']:.2f}", f"{ms[best]:.2f}", best, ratio])
    return f"`benchmarks/cpp_steps.py` on {where(result)}:\n\n{table(rows)}"


def numpy_steps(result: Result) -> str:
    rows = [["net", "minicnn numpy, ms", "PyTorch eager, ms", "NumPy CNN as usually written, ms"]]
    for net, r in result["nets"].items():
        ms = r["milliseconds"]
        rows.append([net, *(f"{ms[s]:.1f}" for s in ("minicnn numpy", "torch eager", "usual numpy"))])
    return (
        f"`benchmarks/numpy_steps.py`, a training step at batch 128, on {where(result)}:\n\n{table(rows)}"
    )


def end_to_end(result: Result) -> str:
    rows = [["simple_cnn, 3 epochs of Fashion-MNIST", "seconds in all", "test accuracy of each run"]]
    for side, seconds in result["median seconds"].items():
        accuracies = ", ".join(f"{a:.2%}" for a in result["accuracy"][side])
        rows.append([side, f"{seconds}", accuracies])
    return f"`benchmarks/end_to_end.py` on {where(result)}:\n\n{table(rows)}"


def memory(result: Result) -> str:
    grown = result["peak growth, MB"]
    sides = list(next(iter(grown.values())))
    rows = [["peak memory of training, MB", *sides]]
    rows += [[net, *(f"{row[side]:.0f}" for side in sides)] for net, row in grown.items()]
    return f"`benchmarks/memory.py` on {where(result)}:\n\n{table(rows)}"


def untuned(result: Result) -> str:
    """How random shapes fare, and every loss."""
    ratios, losses = result["best torch / minicnn"], result["losses"]
    nets = [r for key, r in ratios.items() if key.startswith("net")]
    text = (
        f"`benchmarks/untuned.py`, shapes drawn at random, on {where(result)}: {len(nets)} nets' training "
        f"steps are {min(nets)} to {max(nets)} times as fast as PyTorch's best; of "
        f"{len(ratios) - len(nets)} single operations"
    )
    if not losses:
        return f"{text} none is below 0.8 of it."
    rows = [["operation", "ratio"], *([key, str(r)] for key, r in losses.items())]
    return f"{text} these are below 0.8 of it:\n\n{table(rows)}"


def recipes(result: Result) -> str:
    """One row a recipe: what both sides reach, and in which time."""
    rows = [["recipe", "test accuracy", "PyTorch's", "minutes", "PyTorch's", "ratio"]]
    for name, entry in result.items():
        accuracies = [_accuracy(entry[side]) if side in entry else "" for side in ("minicnn", "torch")]
        spent = entry.get("time")
        times = [f"{spent[side] / 60:.1f}" for side in ("minicnn", "torch")] if spent else ["", ""]
        rows.append([name, *accuracies, *times, f"**{spent['torch / minicnn']}**" if spent else ""])
    places = sorted({where(entry["time"]) for entry in result.values() if "time" in entry})
    return f"`benchmarks/recipes.py`, whole commands, on {'; '.join(places)}:\n\n{table(rows)}"


def _accuracy(side: Result) -> str:
    seeds, error = len(side["seeds"]), side["standard error"]
    spread = "one seed" if error is None else f"± {100 * error:.2f}, {seeds} seeds"
    return f"{side['accuracy']:.2%} ({spread})"


def augment(result: Result) -> str:
    rows = [["`--augment`", "training step, ms", "against none"]]
    for text, ms in result["training step, ms"].items():
        rows.append([text, f"{ms:.2f}", f"{result['step with / without'][text]:.2f}"])
    return (
        f"`benchmarks/augment.py`, simple_cnn at batch 128 with fetching the batch, on {where(result)}:\n\n"
        f"{table(rows)}"
    )


SECTIONS = {
    "cpp_steps": cpp_steps,
    "untuned": untuned,
    "end_to_end": end_to_end,
    "numpy_steps": numpy_steps,
    "memory": memory,
    "recipes": recipes,
    "augment": augment,
}


def figures() -> str:
    """All sections whose result is there."""
    parts = []
    for name, section in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text())))
    return "\n\n".join(parts) + "\n\n"


def main() -> None:
    text = README.read_text()
    head, rest = text.split(BEGIN)
    tail = rest[rest.index(END) :]
    new = f"{head}{BEGIN}\n{figures()}{tail}"
    if "--check" in sys.argv and new != text:
        sys.exit("README.md: its figures are not those of benchmarks/results; run benchmarks/report.py")
    README.write_text(new)


if __name__ == "__main__":
    main()
