"""The plots of docs/images, drawn from the saved results; report.py calls this.

The axes of speeds begin at 0.  In plots of a ratio a line marks 1, where both sides are equally fast.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import links
from nets import NETS
from paired import load
from results import OURS, Result, best_torch, count, ladder_rows, main_entries, ratio, shares
from themes import DARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Path(__file__).parent.parent / "docs" / "images"
KEY = "Results"
COLORS = {
    OURS: "#0b6e99", "torch eager": "#b4b4b4", "torch channels-last": "#e07b39", "torch.compile": "#8c564b",
    "JAX": "#7b52ab", "ONNX Runtime": "#d0a800", "OpenVINO": "#4c9f50",
}  # fmt: skip
LOOKS = {"font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False}
THEMES: dict[str, dict[str, Any]] = {"": LOOKS, "-dark": {**LOOKS, **DARK}}
"""What is added to a plot's file name, and how it looks."""
PHASE_COLORS = {"training": "#0b6e99", "inference": "#7fb8d1"}


def speedup(result: Result) -> Figure:
    """Bars: PyTorch's best time divided by minicnn's, for each net at its main batch size."""
    entries = main_entries(result, threads=2)
    nets = [name for name in NETS if any(net == name for net, _ in entries)]
    figure, axes = new_axes(7, 0.7 + 0.62 * len(nets))
    for i, (phase, color) in enumerate(PHASE_COLORS.items()):
        for row, name in enumerate(nets):
            entry = entries.get((name, phase))
            if entry:
                value = ratio(entry["milliseconds"])
                label = phase if row == 0 else None
                axes.barh(row + 0.38 * i, value, 0.36, color=color, label=label)
                axes.text(value + 0.03, row + 0.38 * i, f"{value:.2f}", va="center", fontsize=9)
    axes.set_yticks(
        [row + 0.19 for row in range(len(nets))], [f"{n}, batch {NETS[n].batches[0]}" for n in nets]
    )
    axes.invert_yaxis()
    finish_ratio(axes, "times as fast as PyTorch's fastest way of eager, channels-last and compiled")
    axes.legend(loc="lower right", frameon=False)
    return figure


def finish_ratio(axes: Any, label: str) -> None:
    axes.axvline(1.0, color=ink(), linewidth=1)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    axes.set_xlabel(label, fontsize=9)


def steps_of(phase: str, threads: int) -> Result:
    """The steps measured in this phase with so many threads; empty for fewer than four batch sizes."""
    found = {
        key: e
        for key, e in load("steps").items()
        if (e["phase"], e["machine"]["threads"]) == (phase, threads)
    }
    return found if len({e["batch"] for e in found.values()}) > 3 else {}


def batches(entries: Result) -> Figure:
    """Lines: images a second against the batch size, a panel for each net."""
    nets = [name for name in NETS if any(e["net"] == name for e in entries.values())]
    columns = min(3, len(nets))
    lines = math.ceil(len(nets) / columns)
    figure = new_figure(max(6.2, 3.1 * columns), 2.5 * lines + 0.5)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, name in zip(panels, nets, strict=False):
        panel(axes, name, [e for e in entries.values() if e["net"] == name])
    for axes in panels[len(nets) :]:
        axes.remove()
    handles = {h.get_label(): h for axes in panels[: len(nets)] for h in axes.get_lines()}
    ordered = [handles[row] for row in COLORS if row in handles]
    figure.legend(handles=ordered, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    one = next(iter(entries.values()))
    phase_and_threads = f"{one['phase']}, {count(one['machine']['threads'])}"
    figure.suptitle(f"images a second against the batch size: {phase_and_threads}", fontsize=10)
    return figure


def panel(axes: Any, name: str, entries: list[Result]) -> None:
    for row, color in COLORS.items():
        points = sorted(
            (e["batch"], 1e3 * e["batch"] / e["milliseconds"][row])
            for e in entries
            if row in e["milliseconds"]
        )
        if points:
            x, y = zip(*points, strict=True)
            line = "o" if row == "torch.compile" else "o-"  # measured at two batch sizes only
            axes.plot(x, y, line, color=color, label=row, markersize=3.5, zorder=3 if row == OURS else 2,
                      linewidth=2 if row == OURS else 1.2)  # fmt: skip
    axes.set_xscale("log", base=2)
    sizes = sorted({e["batch"] for e in entries})
    axes.set_xticks(sizes, [str(n) for n in sizes], fontsize=8)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(name, fontsize=10)


def roofline(result: Result) -> Figure:
    """Dots: shares of the FMA peak; for operations without multiply-adds, shares of the bandwidth."""
    kernels = result["kernels"]
    products = [name for name, kernel in kernels.items() if kernel["MFLOP"]]
    others = [name for name in kernels if name not in products]
    shapes = list(dict.fromkeys(name.rpartition("-")[0] for name in products))
    figure = new_figure(9, 0.26 * (len(shapes) + len(others)) + 2.6)
    heights = [len(shapes), len(others) + 1] if others else [1]
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    for i, direction in enumerate(("forward", "backward")):
        axes = figure.add_subplot(grid[0, i])
        names = [f"{shape}-{direction}" for shape in shapes]
        dots(axes, names, result, 0, shapes if i == 0 else [""] * len(shapes))
        axes.set_title(f"{direction}: share of the FMA peak", fontsize=10)
    if others:
        axes = figure.add_subplot(grid[1, :])
        dots(axes, others, result, 1, others)
        axes.set_title("share of the bandwidth of memory", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def dots(axes: Any, names: list[str], result: Result, which: int, labels: list[str]) -> None:
    """A line for each kernel from PyTorch's share to minicnn's.

    ``which`` names the peak that it is a share of: 0 for multiply-adds, 1 for bandwidth.
    """
    for row, name in enumerate(names):
        kernel = result["kernels"].get(name)
        if kernel is None:
            continue
        ours = shares(kernel, result["peaks"], OURS)[which]
        theirs = shares(kernel, result["peaks"], best_torch(kernel["milliseconds"]))[which]
        axes.plot([theirs, ours], [row, row], color="#cccccc", zorder=1)
        axes.scatter(theirs, row, color=COLORS["torch channels-last"], s=22, zorder=2,
                     label="PyTorch, eager or channels-last" if row == 0 else None)  # fmt: skip
        axes.scatter(
            ours, row, color=COLORS[OURS], s=22, zorder=3, label="minicnn cpp" if row == 0 else None
        )
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(1.0, color=ink(), linewidth=1)
    axes.set_xlim(0, max(1.05, axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def memory(result: Result) -> Figure:
    """Bars: how much memory training takes at its peak, for each net and side."""
    grown = result["peak growth, MB"]
    sides = list(next(iter(grown.values())))
    figure, axes = new_axes(7, 0.8 + 0.75 * len(grown))
    for i, side in enumerate(sides):
        values = [row[side] for row in grown.values()]
        places = [row + 0.27 * i for row in range(len(grown))]
        axes.barh(places, values, 0.25, label=side, color=COLORS.get(side, COLORS[OURS]))
        for place, value in zip(places, values, strict=True):
            axes.text(value + 2, place, f"{value:.0f}", va="center", fontsize=8)
    axes.set_yticks([row + 0.27 for row in range(len(grown))], list(grown))
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.04)
    axes.set_xlabel("peak memory that training adds, MB (less is better)", fontsize=9)
    axes.legend(loc="lower right", frameon=False)
    return figure


def ladder(result: Result) -> Figure:
    """Bars: GFLOP/s of each step of docs/fused.md, of the library's kernel and of PyTorch."""
    rows = ladder_rows(result)
    figure, axes = new_axes(7, 0.9 + 0.36 * len(rows))
    for place, (name, _, _) in enumerate(rows):
        rate = 2e-6 * result["multiply-adds"] / result["forward, ms"][name]
        color = "#7fb8d1" if name.startswith("step") else COLORS.get(name, COLORS[OURS])
        axes.barh(place, rate, 0.7, color=color)
        axes.text(rate + 4, place, f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}", va="center", fontsize=9,
                  bbox={"facecolor": paper(), "edgecolor": "none", "pad": 0.5})  # fmt: skip
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
    axes.invert_yaxis()
    for threads, peak in result["GFLOP/s at peak"].items():
        axes.axvline(peak, color=ink(), linewidth=0.8, linestyle="--")
        above = axes.get_xaxis_transform()  # up from the lower axis, 1 is where the lines end
        axes.text(peak, 1.01, f"peak, {threads}", ha="center", va="bottom", fontsize=8, transform=above)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
    axes.set_xlabel("GFLOP/s, counted as the plain sum has them (more is better)", fontsize=9)
    return figure


def scaling(result: Result) -> Figure:
    """Lines: the predicted efficiency against the number of workers, a panel for each link."""
    figure = new_figure(9, 3.4)
    panels = figure.subplots(1, len(links.LINKS), sharey=True)
    colors = ("#0b6e99", "#e07b39", "#7b52ab", "#4c9f50", "#d0a800", "#8c564b")
    for axes, (label, link) in zip(panels, links.LINKS.items(), strict=True):
        for (name, net), color in zip(result["nets"].items(), colors, strict=False):
            for way, line in (("ours", "-"), ("ring", ":")):
                shares = [links.efficiency(net, workers, way, link) for workers in links.WORKERS]
                axes.plot(links.WORKERS, shares, line, color=color, label=f"{name}, {way}")
        axes.set_xscale("log", base=2)
        axes.set_ylim(0, 1.05)
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("workers, each with one thread and the measured batch", fontsize=9)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


PLOTS: dict[str, tuple[Callable[[], Result], Callable[[Result], Figure]]] = {
    "speedup": (partial(load, "steps"), speedup),
    "roofline": (partial(load, "roofline"), roofline),
    "memory": (partial(load, "memory"), memory),
    "ladder": (partial(load, "ladder"), ladder),
    "scaling": (partial(load, "scaling"), scaling),
    **{
        f"batches-{phase}-{threads}": (partial(steps_of, phase, threads), batches)
        for phase in ("training", "inference")
        for threads in (1, 2)
    },
}
"""For each plot's file name, a call that loads its result and a function that draws it.

A result that was not measured is empty.
"""


def ink() -> Any:
    """The colour of text and lines in the present theme."""
    import matplotlib

    return matplotlib.rcParams["text.color"]


def paper() -> Any:
    """The colour of the ground in the present theme."""
    import matplotlib

    return matplotlib.rcParams["axes.facecolor"]


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, which opens no window."""
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def new_axes(width: float, height: float) -> tuple[Figure, Any]:
    """A figure with one pair of axes."""
    figure = new_figure(width, height)
    return figure, figure.subplots()


def result_hash(name: str) -> str:
    """A hash of the result that a plot shows; empty if there is no result."""
    result = PLOTS[name][0]()
    return hashlib.sha256(json.dumps(result).encode()).hexdigest()[:16] if result else ""


def stale() -> list[str]:
    """The plots, light and dark, that are missing or were drawn from another result than the saved one."""
    from PIL import Image

    found = []
    for name in PLOTS:
        wanted = result_hash(name)
        for theme in THEMES if wanted else ():
            path = IMAGES / f"{name}{theme}.png"
            if not path.exists():
                found.append(path.name)
                continue
            with Image.open(path) as image:
                if image.info.get(KEY) != wanted:
                    found.append(path.name)
    return found


def draw(files: Iterable[str]) -> None:
    """Draw these plots of docs/images.  Matplotlib's global settings are not changed."""
    import matplotlib

    for file in files:
        stem = file.removesuffix(".png")
        name = stem.removesuffix("-dark")
        result, plot = PLOTS[name]
        with matplotlib.rc_context(THEMES[stem.removeprefix(name)]):
            plot(result()).savefig(
                IMAGES / file, dpi=140, metadata={KEY: result_hash(name), "Software": None}
            )
        print(f"drawn: {IMAGES / file}")
