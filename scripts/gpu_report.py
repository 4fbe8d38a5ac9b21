"""What scripts/gpu.py writes: the rows put together, what is missing and why, and all of it as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OURS = "minicnn"
PEERS = ("torch", "channels-last", "captured", "captured channels-last", "compiled")
HEADINGS = {
    "torch": "eager", "channels-last": "eager cl", "captured": "captured",
    "captured channels-last": "captured cl", "compiled": "compiled cl",
}  # fmt: skip
"""The columns of the ways to run torch; cl is channels-last."""
KERNELS_SHOWN = 12

Row = dict[str, Any]


def assembled(lines: list[Row], sections: dict[str, Row], asked: list[str]) -> dict[str, Any]:
    """The report of the lines that the sections wrote; ``asked`` are the sections that were to run."""
    device = next((line for line in lines if "device" in line), {"device": "no device"})
    return {
        **device,
        "sections": sections,
        "rows": merged([line for line in lines if "what" in line]),
        "best": best([line for line in lines if "what" in line]),
        "profiles": [line for line in lines if "profile" in line],
        "trainings": [line for line in lines if "training" in line],
        "notes": [line["note"] for line in lines if "note" in line],
        "left_out": left_out(sections, asked),
    }


def merged(rows: list[Row]) -> list[Row]:
    """Join the rows that different sections and sides have for the same thing."""
    together: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        together.setdefault((row["what"], row["phase"], row["precision"]), {}).update(row)
    return sorted(together.values(), key=_order_of(rows))


def _order_of(rows: list[Row]) -> Any:
    """Things in the order in which they came, and the precisions of a thing and phase together."""
    things = list(dict.fromkeys(row["what"] for row in rows))
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    return lambda row: (
        things.index(row["what"]), phases.index(row["phase"]), precisions.index(row["precision"])
    )  # fmt: skip


def best(rows: list[Row]) -> list[Row]:
    """For each thing and phase the least figure of ours and of torch, in whatever precision it was."""
    found = []
    for what, phase in dict.fromkeys((row["what"], row["phase"]) for row in rows):
        figures = [
            (row[side], side, row["precision"])
            for row in merged(rows)
            if (row["what"], row["phase"]) == (what, phase)
            for side in (OURS, *PEERS)
            if side in row
        ]
        ours = min((f for f in figures if f[1] == OURS), default=None)
        peer = min((f for f in figures if f[1] != OURS), default=None)
        if ours and peer:
            found.append({
                "what": what, "phase": phase, OURS: ours[0], "precision": ours[2], "peer": peer[0],
                "peer is": f"{HEADINGS[peer[1]]}, {peer[2]}",
                "peer / minicnn": round(peer[0] / ours[0], 3) if ours[0] else None,
            })  # fmt: skip
    return found


def left_out(sections: dict[str, Row], asked: list[str]) -> list[str]:
    """The sections that did not run, or not to their end, and why."""
    reasons = {"left out": "{note}", "stopped": "stopped after {seconds:.0f} s", "failed": "failed: {note}"}
    return [
        *(f"{name}: {reasons[done['status']].format(**done)}" for name, done in sections.items()
          if done["status"] in reasons),
        *(f"{name}: not begun" for name in asked if name not in sections),
    ]  # fmt: skip


# ---- as text ---------------------------------------------------------------------------------------


def text(report: dict[str, Any]) -> str:
    """The report as text.  A ratio is torch's best time divided by minicnn's: above 1 minicnn is faster."""
    parts = [_rows(report), _best(report["best"]), _trainings(report["trainings"]),
             *map(_profile, report["profiles"]), _status(report)]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part) + "\n"


def _rows(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{report['device']}, torch {report.get('torch')}, CUDA {report.get('cuda')}, "
        f"Python {report.get('python')}; milliseconds, and megabytes of memory; medians"
    )
    yield (
        f"{'':36} {'':10} {'':9} {'minicnn':>9} "
        + " ".join(f"{HEADINGS[peer]:>12}" for peer in PEERS)
        + f" {'best / minicnn':>15} {'error':>9}"
    )
    for row in report["rows"]:
        times = [row[peer] for peer in PEERS if peer in row]
        cells = " ".join(f"{row[peer]:12.3f}" if peer in row else f"{'-':>12}" for peer in PEERS)
        ours = row.get(OURS)
        ratio = f"{min(times) / ours:15.2f}" if ours and times else f"{'-':>15}"
        wrong = f"{row['error']:9.1e}" if "error" in row else f"{'-':>9}"
        own = f"{ours:9.3f}" if ours is not None else f"{'-':>9}"
        yield f"{row['what']:36} {row['phase']:10} {row['precision']:9} {own} {cells} {ratio} {wrong}"


def _best(rows: list[Row]) -> Iterator[str]:
    if rows:
        yield f"the best in any precision {'minicnn':>31} {'':9} {'torch':>9} {'':24} torch / minicnn"
    for row in rows:
        ratio = f"{row['peer / minicnn']:15.2f}" if row["peer / minicnn"] else f"{'-':>15}"
        yield (
            f"{row['what']:36} {row['phase']:10} {row[OURS]:9.3f} {row['precision']:9} "
            f"{row['peer']:9.3f} {row['peer is']:24} {ratio}"
        )


def _trainings(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        yield (
            f"{row['training']} in {row['precision']}: {row['accuracy']:.2%} in {row['seconds']:.1f} s, of "
            f"which epochs {row['seconds in epochs']:.1f} s, {row['images a second']:,} images a second"
        )


def _profile(row: Row) -> Iterator[str]:
    yield (
        f"{row['profile']}, step in {row['precision']}, {row['side']}: {row['whole']:.3f} ms, "
        f"{row['launches']:.0f} kernels and copies, gaps {row['gaps']:.3f} ms"
    )
    for name, launches, ms in row["kernels"][:KERNELS_SHOWN]:
        yield f"{ms:9.4f} ms {launches:6.1f} x  {name}"


def _status(report: dict[str, Any]) -> Iterator[str]:
    for name, done in report["sections"].items():
        yield f"{name}: {done['status']} in {done['seconds']:.0f} s; {done['note']}"
    yield from (f"note: {note}" for note in report["notes"])
    yield from (f"left out: {reason}" for reason in report["left_out"])
