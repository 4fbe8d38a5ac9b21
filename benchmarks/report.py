"""Write the documents' figures from the saved results, so that nobody types a number.

    python benchmarks/report.py            rewrites README.md and docs/, draws the plots
    python benchmarks/report.py --check    fails if that would change them

A block between <!-- NAME: begin --> and <!-- NAME: end --> holds the section of that name below; the plots
in docs/images are drawn by figures.py, and bear a hash of the results that they show.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures
import image_tables
import judging
import links
import trials
import whole_nets
from paired import load
from results import (
    OURS,
    Result,
    best_torch,
    ladder_rows,
    milliseconds,
    places,
    ratio,
    shares,
    table,
    where,
)

from minicnn.recipes.results import epochs_of
from minicnn.recipes.results import load as load_recipes

ROOT = Path(__file__).parent.parent
NAMES = (
    "benchmarks", "bfloat16", "distributed", "export", "folders", "fused", "lockstep", "pytorch",
    "live/index", "reliability", "report", "session", "wheels",
)  # fmt: skip
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES))
BLOCK = re.compile(r"(<!-- (\w+): begin -->\n)(.*?)(<!-- \2: end -->)", re.DOTALL)


def numpy_steps(result: Result) -> str:
    rows = [["net", "minicnn numpy, ms", "PyTorch eager, ms", "NumPy CNN as usually written, ms"]]
    for net, r in result["nets"].items():
        ms = r["milliseconds"]
        rows.append([net, *(f"{ms[s]:.1f}" for s in ("minicnn numpy", "torch eager", "usual numpy"))])
    return (
        f"{table(rows)}\n\n`benchmarks/numpy_steps.py`, a training step at batch 128, on {where(result)}."
    )


def end_to_end(result: Result) -> str:
    rows = [["simple_cnn, 3 epochs of Fashion-MNIST", "seconds in all", "test accuracy of each run"]]
    for side, seconds in result["median seconds"].items():
        accuracies = ", ".join(f"{a:.2%}" for a in result["accuracy"][side])
        rows.append([side, f"{seconds}", accuracies])
    return f"{table(rows)}\n\n`benchmarks/end_to_end.py` on {where(result)}."


def memory(result: Result) -> str:
    grown = result["peak growth, MB"]
    sides = list(next(iter(grown.values())))
    rows = [["peak memory of training, MB", *sides]]
    rows += [[net, *(f"{row[side]:.0f}" for side in sides)] for net, row in grown.items()]
    return f"{table(rows)}\n\n`benchmarks/memory.py` on {where(result)}."


def browser(result: Result) -> str:
    rows = [["net, images", "minicnn, ms", "TensorFlow.js, fastest backend, ms", "TensorFlow.js / minicnn"]]
    for name, net in result["nets"].items():
        ms = dict(net["ms a step"])
        ours = ms.pop("minicnn")
        best = min(ms, key=lambda side: ms[side])
        rows.append([
            f"{name}, {net['image'][0]}×{net['image'][1]}", f"{ours:.1f}",
            f"{ms[best]:.0f} ({best.split()[-1]})", f"{ms[best] / ours:.1f}",
        ])  # fmt: skip
    versions = (
        f"Chromium {result['machine']['browser']}, TensorFlow.js {result['machine']['TensorFlow.js']}"
    )
    return (
        f"## How fast\n\n{table(rows)}\n\nA training step with {result['batch']} images, {versions}, "
        f"without a graphics card. `benchmarks/browser.py` on {where(result)}."
    )


def threads(result: Result) -> str:
    rows = [["net, batch, phase", "1 thread / 2 threads"]]
    rows += [[key, f"{r:.2f}"] for key, r in result["1 thread / 2 threads"].items()]
    return f"{table(rows)}\n\n`benchmarks/threads.py` on {where(result)}."


def untuned(result: Result) -> str:
    """How random shapes fare, and every loss."""
    ratios, lost = result["best torch / minicnn"], result["losses"]
    nets = [r for key, r in ratios.items() if key.startswith("net")]
    slower = sum(r < 1 for key, r in ratios.items() if not key.startswith("net"))
    text = (
        f"On {where(result)}, {len(nets)} nets' training steps are {min(nets)} to {max(nets)} times as "
        f"fast as PyTorch's best; of {len(ratios) - len(nets)} single operations {slower} are slower"
    )
    if not lost:
        return f"{text}, none below 0.8 of it (`benchmarks/untuned.py`)."
    rows = [["operation", "ratio"], *([key, str(r)] for key, r in lost.items())]
    return f"{text}, and these are below 0.8 of it (`benchmarks/untuned.py`):\n\n{table(rows)}"


def recipes(result: Result) -> str:
    """What both sides of each recipe reach, and in which time on which processor."""
    reached = [["recipe", "test accuracy", "PyTorch's"]]
    times = [["recipe", "processor", "minutes", "PyTorch's", "ratio", "epochs timed"]]
    for name, entry in result.items():
        reached.append([name, *(_accuracy(entry[s]) if s in entry else "" for s in ("minicnn", "torch"))])
        for cpu, spent in entry.get("times", {}).items():
            minutes = [f"{spent[s] / 60:.2f}" if s in spent else "" for s in ("minicnn", "torch")]
            ratio = f"**{spent['torch / minicnn']}**" if "torch" in spent else ""
            times.append([name, cpu, *minutes, ratio, f"{spent['epochs timed']} of {epochs_of(entry)}"])
    timed = places([spent for entry in result.values() for spent in entry.get("times", {}).values()])
    return (
        f"{table(reached)}\n\n{table(times)}\n\n`benchmarks/recipes.py`, whole commands, timed on "
        f"{timed or 'no machine yet'}; where not all epochs were timed, the rest is reckoned."
    )


def _accuracy(side: Result) -> str:
    seeds, error = len(side["seeds"]), side["standard error"]
    spread = "one seed" if error is None else f"± {100 * error:.2f}, {seeds} seeds"
    return f"{side['accuracy']:.2%} ({spread})"


def precision_recipes(result: Result) -> str:
    """The test accuracy of recipes in both precisions."""
    rows = [["recipe", "float32, by seed", "bfloat16, by seed", "bfloat16 - float32, points"]]
    for name, entry in result["recipes"].items():
        seeds = [", ".join(f"{a:.2%}" for a in found.values()) for found in entry["accuracy"].values()]
        error = entry["standard error"]
        spread = "" if error is None else f" ± {100 * error:.2f}"
        rows.append([name, *seeds, f"{100 * entry['bfloat16 - float32']:+.2f}{spread}"])
    if len(rows) == 1:
        return "Not measured yet."
    return f"{table(rows)}\n\n`benchmarks/precision.py` on {places(list(result['recipes'].values()))}."


def precision_card(result: Result) -> str:
    """The test accuracy and time of recipes on a card, in every precision; empty if there are none."""
    rows = [
        ["recipe", "precision", "test accuracy, by seed", "mean", "seconds of the whole command, by seed"]
    ]
    found = result.get("recipes on a card", {})
    for name, entry in found.items():
        for precision, by_seed in entry["accuracy"].items():
            reached = ", ".join(f"{a:.2%}" for a in by_seed.values())
            spent = ", ".join(f"{s:.1f}" for s in entry["seconds"][precision].values())
            mean = sum(by_seed.values()) / len(by_seed)
            rows.append([name, precision, reached, f"{mean:.2%}", spent])
    if len(rows) == 1:
        return ""
    cards = ", ".join(dict.fromkeys(entry["machine"]["card"] for entry in found.values()))
    title = "On an NVIDIA GPU, in float32, TF32 and bfloat16:"
    return f"{title}\n\n{table(rows)}\n\n`benchmarks/precision.py --backend cuda` on {cards}."


def precision_offset(result: Result) -> str:
    """The training that bfloat16 spoils: accuracy and loss by what was added to the images."""
    rows = [["added", "float32: accuracy", "training loss", "bfloat16: accuracy", "training loss"]]
    for offset, found in result["offset"].items():
        cells = [(f"{f['accuracy']:.1%}", f"{f['training loss']:.2f}") for f in found.values()]
        rows.append([offset, *(cell for pair in cells for cell in pair)])
    return f"{table(rows)}\n\n`benchmarks/precision.py --offset`, lenet5 on the bundled sample."


def fold(result: Result) -> str:
    """Inference with batch norms folded, with them as operations of their own, and PyTorch's."""
    rows = [[f"inference of {result['net']}", "ms", "this / batch norms folded"]]
    ms = result["milliseconds"]
    labels = {"folded": "batch norms folded", "not folded": "batch norms as operations of their own"}
    rows += [[labels.get(side, side), f"{t:.2f}", f"{t / ms['folded']:.2f}"] for side, t in ms.items()]
    return f"{table(rows)}\n\n`benchmarks/fold.py` on {where(result)}."


def in_torch(result: Result) -> str:
    """PyTorch scripts with and without the one line: steps, epochs and memory; losses and gradients."""
    ours, plain, last = "minicnn.torch", "PyTorch", "PyTorch channels-last"
    times = [["net, batch", "step, ms", "PyTorch", "channels-last", "torch.compile", "PyTorch / this",
              "epoch", "memory, MB", "PyTorch's"]]  # fmt: skip
    apart = [["net, batch", "losses differ by", "channels-last's", "first gradients off by", "PyTorch's",
              "channels-last's"]]  # fmt: skip
    for net, entry in result.items():
        step, epoch, grown = entry["step, ms"], entry["epoch, ms"], entry["peak growth, MB"]
        others = (milliseconds(step[s]) if s in step else "" for s in (plain, last, "torch.compile"))
        times.append([
            net, milliseconds(step[ours]), *others, f"**{step[plain] / step[ours]:.2f}**",
            f"**{epoch[plain] / epoch[ours]:.2f}**", f"{grown[ours]:.0f}", f"{grown[plain]:.0f}",
        ])  # fmt: skip
        differ, off = entry["losses differ by"], entry["first gradients off by"]
        shown = (differ[ours], differ[last], off[ours], off[plain], off[last])
        apart.append([net, *(f"{value:.1e}" for value in shown)])
    measured = f"`benchmarks/in_torch.py` on {places([*result.values()])}."
    return f"{table(times)}\n\n{table(apart)}\n\n{measured}"


def exported(result: Result) -> str:
    """Exported models: size, and accuracy and differences in each engine."""
    rows = [
        ["net", "MB", "engine", "accuracy", "minicnn's", "largest difference of a logit", "other answers"]
    ]
    for net, kinds in result["nets"].items():
        for kind, entry in kinds.items():
            for one in entry["engines"]:
                rows.append([
                    f"{net}, {kind}", f"{entry['bytes'] / 1e6:.2f}", f"{one['engine']} {one['version']}",
                    f"{one['accuracy']:.2%}", f"{one['accuracy_of_minicnn']:.2%}",
                    f"{one['largest_difference']:.1e} of {one['largest_logit']:.1f}",
                    f"{one['other_answers']} of {one['images']:,}",
                ])  # fmt: skip
    return f"{table(rows)}\n\n`benchmarks/exported.py`, {result['epochs']} epochs, on {where(result)}."


def fusion(result: Result) -> str:
    """What each fused operation saves of a step, and what those that are not built could."""
    rows = [["training step", "ms", "against the step as it is"]]
    for net, ms in result["training step, ms"].items():
        rows += [[f"{net}: {what}", f"{t:.1f}", f"{t / ms['as it is']:.2f}"] for what, t in ms.items()]
    return f"{table(rows)}\n\n`benchmarks/fusion.py` on {where(result)}."


def roofline(result: Result) -> str:
    """Each kernel's rates as shares of the measured peaks."""
    rows = [["operation, shape, direction", "ms", "share of FMA peak", "share of bandwidth",
             "best PyTorch, ms", "ratio"]]  # fmt: skip
    for name, kernel in result["kernels"].items():
        ms = kernel["milliseconds"]
        fma, bandwidth = shares(kernel, result["peaks"], OURS)
        rows.append([name, f"{ms[OURS]:.3g}", f"{fma:.0%}" if fma else "", f"{bandwidth:.0%}",
                     f"{ms[best_torch(ms)]:.3g}", f"**{ratio(ms):.2f}**"])  # fmt: skip
    peaks, measured = result["peaks"], places(list(result["kernels"].values()))
    return (
        f"{table(rows)}\n\n`benchmarks/roofline.py` on {measured}; the peaks, which `benchmarks/peak.cpp` "
        f"measures, are {peaks['GFLOP/s']:.0f} GFLOP/s and {peaks['GB/s']:.0f} GB/s."
    )


def kernel_losses(result: Result) -> str:
    """The single operations of real networks that are slower than PyTorch's."""
    ratios = {name: ratio(kernel["milliseconds"]) for name, kernel in result["kernels"].items()}
    lost = [f"{name} {r:.2f}" for name, r in ratios.items() if r < 0.995]
    text = f"Of {len(ratios)} operations PyTorch is faster in {len(lost)}"
    return f"{text}: {', '.join(lost)}." if lost else f"{text}."


def ladder(result: Result) -> str:
    """The forward steps, the library, PyTorch."""
    peaks, threads = result["GFLOP/s at peak"], result["machine"]["threads"]
    rows = [["step", "threads", "ms", "GFLOP/s", "share of FMA peak", "best PyTorch / this"]]
    ms = result["forward, ms"]
    for name, label, used in ladder_rows(result):
        rate = 2e-6 * result["multiply-adds"] / ms[name]
        peak = peaks["1 thread" if used == 1 else f"{threads} threads"]
        rows.append([label, str(used), f"{ms[name]:.2f}", f"{rate:.1f}", f"{rate / peak:.0%}",
                     f"{ms[best_torch(ms)] / ms[name]:.2f}"])  # fmt: skip
    return f"{table(rows)}\n\n`benchmarks/ladder.py`, {result['layer']}, on {where(result)}."


def ladder_backward(result: Result) -> str:
    """The gradient to the weights, over the full map and from the winners alone."""
    rows = [["gradient to the weights", "ms", "best PyTorch / this"]]
    ms = result["backward, ms"]
    labels = {"backward_dense": "over the full map", "backward_winners": "from the winners alone"}
    for name, t in ms.items():
        rows.append([labels.get(name, name), f"{t:.2f}", f"{ms[best_torch(ms)] / t:.2f}"])
    return table(rows)


SECTIONS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "headline": ("steps", whole_nets.headline),
    "avx512": ("steps_avx512", whole_nets.headline),
    "steps": ("steps", whole_nets.steps),
    "losses": ("steps", whole_nets.losses),
    "session": ("session", whole_nets.sessions),
    "session_tail": ("session", whole_nets.session_tails),
    "first_result": ("first_result", whole_nets.first_results),
    "neighbours": ("neighbours", whole_nets.neighbours),
    "levels": ("levels", whole_nets.levels),
    "second_thread_lost": ("steps", whole_nets.second_thread_lost),
    "bfloat16": ("bfloat16", whole_nets.bfloat16),
    "tile_units": ("tile_units", whole_nets.tile_units),
    "kernel_losses": ("roofline", kernel_losses),
    "ladder": ("ladder", ladder),
    "ladder_backward": ("ladder", ladder_backward),
    "lockstep_bounds": ("lockstep", trials.lockstep_bounds),
    "lockstep_choices": ("lockstep", trials.lockstep_choices),
    "lockstep_bfloat16": ("lockstep", trials.lockstep_bfloat16),
    "precision_recipes": ("precision", precision_recipes),
    "precision_card": ("precision", precision_card),
    "precision_offset": ("precision", precision_offset),
    "kill_resume": ("kill_resume", trials.kill_resume),
    "kill_workers": ("kill_workers", trials.kill_workers),
    "two_hosts": ("two_hosts", trials.two_hosts),
    "scaling": ("scaling", links.scaling),
    "process_parts": ("process_parts", links.parts),
    "fail_resume": ("fail_resume", trials.fail_resume),
    "fuzz": ("fuzz", trials.fuzz),
    "report_classes": ("report_example", judging.report_classes),
    "report_calibration": ("report_example", judging.report_calibration),
    "report_coverage": ("report_example", judging.report_coverage),
    "report_mislabels": ("report_example", judging.report_mislabels),
    **{
        section.__name__: (section.__name__, section)
        for section in (
            untuned,
            end_to_end,
            numpy_steps,
            memory,
            image_tables.large_folder,
            threads,
            recipes,
            image_tables.augment,
            image_tables.recipe_revisions,
            browser,
            fold,
            exported,
            fusion,
            in_torch,
            roofline,
        )
    },
}
"""The sections by name: which result each shows, and how."""


def saved(name: str) -> dict[str, Any]:
    """A saved result; that of the recipes is data of the package, since `--recipe list` prints it."""
    return load_recipes() if name == "recipes" else load(name)


def filled(text: str) -> str:
    """A page with every block's section as the results have it; empty where there is no result."""

    def fill(match: re.Match[str]) -> str:
        result_name, section = SECTIONS[match[2]]
        result = saved(result_name)
        shown = section(result) if result else ""
        return f"{match[1]}\n{shown}\n\n{match[4]}" if shown else f"{match[1]}{match[4]}"

    return BLOCK.sub(fill, text)


def main() -> None:
    stale = figures.stale()
    changed = {page: text for page in PAGES if (text := filled(page.read_text())) != page.read_text()}
    if "--check" in sys.argv:
        names = [*stale, *(page.name for page in changed)]
        if names:
            sys.exit(f"{', '.join(names)}: not those of the saved results; run benchmarks/report.py")
        return
    for page, text in changed.items():
        page.write_text(text)
    figures.draw(stale)


if __name__ == "__main__":
    main()
