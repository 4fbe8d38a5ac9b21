"""What `minicnn.torch.accelerate` did with each part of a module, as a table."""

from __future__ import annotations

from typing import NamedTuple

from minicnn.torch.steps import Timing


class Row(NamedTuple):
    """One group of neighbouring modules, or one module whose forward could not be read."""

    names: str
    """The full names of the modules, or how a function is called."""
    mode: str
    """"training" or "evaluation"."""
    op: str
    """minicnn's operation; empty if there is none."""
    replaced: bool
    why: str
    """Why it was replaced or left."""
    timing: Timing | None


class Report(NamedTuple):
    """The rows, and milliseconds of the whole module before and after; `str` gives a table."""

    rows: tuple[Row, ...]
    whole: dict[str, Timing]
    """"training" and "evaluation" -> the module as it was, and as it is now."""
    verdict: str

    def __str__(self) -> str:
        lines = [self.verdict]
        for mode, timing in self.whole.items():
            lines.append(
                f"  {mode}: {timing.modules:.3g} ms before, {timing.step:.3g} ms now "
                f"({timing.modules / timing.step:.2f} times as fast)"
            )
        for mode in dict.fromkeys(row.mode for row in self.rows):
            rows = [row for row in self.rows if row.mode == mode]
            width = max(len(row.names) for row in rows)
            ops = max((len(row.op) for row in rows if row.replaced), default=4)
            lines.append(f"{mode}:" if mode else "not read:")
            for row in rows:
                what = row.op if row.replaced else "left"
                lines.append(f"  {row.names:{width}}  {what:{ops}}  {row.why}".rstrip())
        return "\n".join(lines)
