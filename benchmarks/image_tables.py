"""The sections of benchmarks/report.py about getting images: folders, batches, whole recipes."""

from __future__ import annotations

from results import Result, places, table, where


def large_folder(result: Result) -> str:
    return "\n\n".join(map(_one_folder, result.values()))


def _one_folder(entry: Result) -> str:
    rows = [["", "seconds", "peak resident memory, MB"]]
    for name in ("first start", "second start", "one epoch and test"):
        seconds = entry[name].get("seconds")
        rows.append([name, "" if seconds is None else f"{seconds:.1f}", f"{entry[name]['peak, MB']:,}"])
    reading = entry.get("reading on the second start, seconds")
    of_it = "" if reading is None else f" Of the second start, reading the images takes {reading:.1f} s."
    what = (
        f"{entry['images']:,} JPEG files of {entry['side']}×{entry['side']} pixels, "
        f"{entry['JPEG, MB']:,.0f} MB, decoded {entry['decoded, MB']:,.0f} MB; {entry['model']} in "
        f"batches of {entry['batch']}.{of_it}"
    )
    return f"{table(rows)}\n\n{what} `benchmarks/large_folder.py` on {where(entry)}."


def augment(result: Result) -> str:
    rows = [["`--augment`", "training step, ms", "against none", "making the batch, more than without"]]
    for text, ms in result["training step, ms"].items():
        alone = result["batch alone, ms"]
        share = (alone[text] - alone["none"]) / result["training step, ms"]["none"]
        rows.append([text, f"{ms:.2f}", f"{result['step with / without'][text]:.2f}", f"{share:.1%}"])
    text = (
        f"{table(rows)}\n\n`benchmarks/augment.py`, simple_cnn at batch 128 with fetching the batch, on "
        f"{where(result)}."
    )
    return f"{text}\n\n{_peers(result['against peers'])}" if "against peers" in result else text


def recipe_revisions(result: Result) -> str:
    """Whole recipes in two revisions, every run's seconds."""
    rows = [["recipe, epochs", "seconds before", "seconds after", "before / after", "test accuracy"]]
    for name, entry in result.items():
        seconds = [", ".join(f"{s:.1f}" for s in entry["seconds"][side]) for side in ("before", "after")]
        accuracy = ", ".join(f"{entry['accuracy'][side]:.2%}" for side in ("before", "after"))
        rows.append([f"{name}, {entry['epochs']}", *seconds, f"{entry['before / after']:.2f}", accuracy])
    return f"{table(rows)}\n\n`benchmarks/recipe_revisions.py` on {places([*result.values()])}."


def _peers(found: Result) -> str:
    """Images a second that each library changes; torchvision draws its numbers once for a whole batch."""
    rows = [["batches of 128", "library", "thousand images a second", "minicnn / library"]]
    for what, sides in found.items():
        for side, speed in sides["thousand images a second"].items():
            rows.append([what, side, f"{speed:,.0f}", f"{sides['minicnn / other'].get(side, 1):.1f}"])
    return (
        f"{table(rows)}\n\nEach side draws its random numbers and makes batches of 28x28 pixels; "
        "torchvision draws once for a whole batch, the others for each image."
    )
