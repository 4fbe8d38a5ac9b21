"""What tables and plots read out of the saved results alike."""

from __future__ import annotations

from typing import Any

from nets import NETS

Result = dict[str, Any]
OURS = "minicnn cpp"


def table(rows: list[list[str]], *, left: int = 1) -> str:
    """A Markdown table; the first row is the heading, the first columns stand at the left."""
    rule = ["---"] * left + ["---:"] * (len(rows[0]) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def where(result: Result) -> str:
    """The machine, threads, versions and commit of a result."""
    at = result["machine"]
    return f"{at['cpu']}, {count(at['threads'])}, torch {at['torch']}, commit {at['commit']}"


def places(entries: list[Result]) -> str:
    """Where the entries were measured; usually one place and one commit."""
    commits: dict[str, dict[str, None]] = {}
    for entry in entries:
        place, _, commit = where(entry).rpartition(", commit ")
        commits.setdefault(place, {})[commit] = None
    return "; ".join(f"{place}, commit {', '.join(found)}" for place, found in commits.items())


def milliseconds(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def count(threads: int) -> str:
    """``1 thread`` or ``2 threads``."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def best_torch(ms: dict[str, float]) -> str:
    """The fastest of the ways of running PyTorch."""
    return min((row for row in ms if row.startswith("torch")), key=ms.__getitem__)


def ratio(ms: dict[str, float]) -> float:
    """PyTorch's fastest time over minicnn's: above 1 minicnn is faster."""
    return ms[best_torch(ms)] / ms[OURS]


def main_entries(steps: Result, threads: int) -> dict[tuple[str, str], Result]:
    """The entries at each net's main batch size, by net and phase."""
    return {
        (e["net"], e["phase"]): e
        for e in steps.values()
        if e["batch"] == NETS[e["net"]].batches[0] and e["machine"]["threads"] == threads
    }


def shares(kernel: Result, peaks: dict[str, float], row: str) -> tuple[float, float]:
    """Shares of the peaks of multiply-adds and of bandwidth."""
    seconds = kernel["milliseconds"][row] / 1e3
    return (
        kernel["MFLOP"] / 1e3 / seconds / peaks["GFLOP/s"],
        kernel["MB"] / 1e3 / seconds / peaks["GB/s"],
    )


def ladder_rows(result: Result) -> list[tuple[str, str, int]]:
    """The ladder's rows: name in the result, words for it, threads used."""
    threads = result["machine"]["threads"]
    words = {
        "step1_naive": "1 naive", "step2_channels_last": "2 channels last",
        "step3_register_tile": "3 register tile", "step4_threads": "4 threads",
        "step5_fused_relu": "5 fused ReLU", "step6_fused_pool": "6 fused max-pool",
        "minicnn": "minicnn's kernel (Winograd)",
    }  # fmt: skip
    single = ("step1_naive", "step2_channels_last", "step3_register_tile")
    return [
        (name, words.get(name, name), 1 if name in single else threads) for name in result["forward, ms"]
    ]
