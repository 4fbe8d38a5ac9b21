"""The generated sections on whole nets, in float32 and bfloat16: tables, and what is slower than a peer."""

from __future__ import annotations

from nets import NETS
from results import OURS, Result, best_torch, count, main_entries, milliseconds, places, ratio, table, where


def headline(result: Result) -> str:
    """README's table: each net at its main batch size, against the fastest way of running PyTorch."""
    rows = [["net, batch", "training step, ms", "best PyTorch", "ratio",
             "inference, ms", "best PyTorch", "ratio"]]  # fmt: skip
    entries = main_entries(result, threads=2)
    for name, net in NETS.items():
        row = [f"{name}, {net.batches[0]}"]
        for phase in ("training", "inference"):
            entry = entries.get((name, phase))
            if entry:
                ms = entry["milliseconds"]
                row += [f"{ms[OURS]:.2f}", f"{ms[best_torch(ms)]:.2f}", f"**{ratio(ms):.2f}**"]
            else:
                row += ["", "", ""]
        rows.append(row)
    return f"{table(rows)}\n\n`benchmarks/steps.py` on {places(list(entries.values()))}."


def steps(result: Result) -> str:
    """Every measured batch size, phase and number of threads, with every peer."""
    parts = []
    for threads in (2, 1):
        for phase in ("training", "inference"):
            entries = [
                e for e in result.values() if e["phase"] == phase and e["machine"]["threads"] == threads
            ]
            if entries:
                title = f"### {phase.capitalize()}, {count(threads)}"
                parts.append(
                    f"{title}\n\n{step_table(entries)}\n\n`benchmarks/steps.py` on {places(entries)}."
                )
    return "\n\n".join(parts)


def step_table(entries: list[Result]) -> str:
    peers = list(dict.fromkeys(row for e in entries for row in e["milliseconds"]))
    rows = [["net, batch", *peers, "best PyTorch / minicnn"]]
    order = list(NETS)
    for entry in sorted(entries, key=lambda e: (order.index(e["net"]), e["batch"])):
        ms = entry["milliseconds"]
        cells = [milliseconds(ms[peer]) if peer in ms else "" for peer in peers]
        rows.append([f"{entry['net']}, {entry['batch']}", *cells, f"**{ratio(ms):.2f}**"])
    return f"Milliseconds:\n\n{table(rows)}"


def bfloat16(result: Result) -> str:
    """Every net in bfloat16: training and inference, with all peers and their precisions."""
    parts = []
    for phase in ("training", "inference"):
        entries = [entry for entry in result.values() if entry["phase"] == phase]
        peers = list(dict.fromkeys(row for e in entries for row in e["milliseconds"]))
        engines = [peer for peer in peers if peer.startswith("OpenVINO")]
        compared = ["PyTorch bfloat16", "best PyTorch", *engines]
        rows = [["net, batch", *peers, *(f"{peer} / minicnn bfloat16" for peer in compared)]]
        for entry in sorted(entries, key=lambda e: [*NETS].index(e["net"])):
            ms = entry["milliseconds"]
            cells = [milliseconds(ms[peer]) if peer in ms else "" for peer in peers]
            autocast = min(
                t for row, t in ms.items() if row.startswith("torch") and row.endswith("bfloat16")
            )
            times = (autocast, ms[best_torch(ms)], *(ms.get(engine) for engine in engines))
            ratios = [f"**{t / ms['minicnn bfloat16']:.2f}**" if t else "" for t in times]
            rows.append([f"{entry['net']}, {entry['batch']}", *cells, *ratios])
        parts.append(
            f"Milliseconds, {phase}:\n\n{table(rows)}\n\n`benchmarks/bfloat16.py` on {places(entries)}."
        )
    return "\n\n".join(parts)


def tile_units(result: Result) -> str:
    """minicnn in bfloat16 against its float32, with less and less of the processor."""
    header = ["net, batch", "training, ms", "float32, ms", "ratio", "inference, ms", "float32, ms", "ratio",
              "memory, MB", "float32's"]  # fmt: skip
    parts = []
    for unit, entry in result.items():
        rows = [header]
        for net, found in entry["nets"].items():
            row = [net]
            for ms in found["milliseconds"].values():
                row += [*map(milliseconds, ms.values()), f"**{ms['float32'] / ms['bfloat16']:.2f}**"]
            rows.append([*row, *(f"{grown:.0f}" for grown in found["peak growth, MB"].values())])
        parts.append(f"{unit}:\n\n{table(rows)}")
    parts.append(f"`benchmarks/tile_units.py` on {places([*result.values()])}.")
    return "\n\n".join(parts)


def losses(result: Result) -> str:
    """Everything in which a peer is faster, however it is run."""
    rows = [["net, batch, phase, threads", "faster", "its ms", "minicnn, ms", "ratio"]]
    for key, entry in result.items():
        ms = entry["milliseconds"]
        ours = ms[OURS]
        rows += [
            [key, peer, milliseconds(t), milliseconds(ours), f"{t / ours:.2f}"]
            for peer, t in ms.items()
            if t < ours
        ]
    if len(rows) == 1:
        return f"Of {len(result)} measurements of whole steps and inference, none."
    return f"In {len(result)} measurements of whole steps and inference:\n\n{table(rows, left=2)}"


def second_thread_lost(result: Result) -> str:
    """What the second thread slows down; the two times are of different runs."""
    rows = [["net, batch, phase", "1 thread, ms", "2 threads, ms"]]
    for key, entry in result.items():
        alone = result.get(f"{key.removesuffix('2 threads')}1 thread")
        if alone:
            one, two = alone["milliseconds"][OURS], entry["milliseconds"][OURS]
            if one < two:
                rows.append([key.removesuffix(", 2 threads"), milliseconds(one), milliseconds(two)])
    return table(rows) if len(rows) > 1 else "Nothing."


def sessions(result: Result) -> str:
    """Every net, batch size and precision through a session, against the fastest of its peers."""
    parts = []
    order = list(NETS)
    for precision in ("float32", "bfloat16"):
        for threads in (1, 2):
            entries = [
                e
                for e in result.values()
                if e["precision"] == precision
                and e["machine"]["threads"] == threads
                and "milliseconds" in e
            ]
            if not entries:
                continue
            peers = list(dict.fromkeys(row for e in entries for row in e["milliseconds"]))
            rows = [["net, batch", *peers, "best peer / session", "memory, MiB"]]
            for e in sorted(entries, key=lambda e: (order.index(e["net"]), e["batch"])):
                ms = e["milliseconds"]
                best = min(ms[peer] for peer in ms if peer not in ("session", "predict"))
                cells = [milliseconds(ms[peer]) if peer in ms else "" for peer in peers]
                mib = sum(e["memory"].values()) / 2**20
                rows.append(
                    [f"{e['net']}, {e['batch']}", *cells, f"**{best / ms['session']:.2f}**", f"{mib:.1f}"]
                )
            title = f"### {precision}, {count(threads)}"
            parts.append(f"{title}\n\n{table(rows)}\n\n`benchmarks/session.py` on {places(entries)}.")
    return "\n\n".join(parts)


def first_results(result: Result) -> str:
    """How long each side takes until its first result, and what it keeps in memory."""
    sides = list(dict.fromkeys(side for e in result.values() for side in e["sides"]))
    rows = [["net, precision", *(f"{side}, s" for side in sides), *(f"{side}, MiB" for side in sides)]]
    for e in result.values():
        cells = [
            f"{e['sides'][side][what]:{form}}" if side in e["sides"] else ""
            for what, form in (("first result, s", ".3f"), ("memory, MiB", ".1f"))
            for side in sides
        ]
        rows.append([f"{e['net']}, {e['precision']}", *cells])
    return f"{table(rows)}\n\n`benchmarks/first_result.py` on {places(list(result.values()))}."


def session_tails(result: Result) -> str:
    """The median and the 99th percentile of single calls; empty if they were not measured."""
    entries = [e for e in result.values() if "tail" in e]
    if not entries:
        return ""
    peers = list(dict.fromkeys(side for e in entries for side in e["tail"]))
    rows = [["net, precision, threads", *(f"{peer}, p50 / p99" for peer in peers)]]
    for e in entries:
        cells = [
            f"{milliseconds(e['tail'][p]['p50'])} / {milliseconds(e['tail'][p]['p99'])}"
            if p in e["tail"]
            else ""
            for p in peers
        ]
        rows.append([f"{e['net']}, {e['precision']}, {e['machine']['threads']}", *cells])
    title = "### Single calls\n\nThe median and the 99th percentile of 10,000 calls of one image, in ms:"
    return f"{title}\n\n{table(rows)}\n\n`benchmarks/session.py --tail` on {places(entries)}."


def neighbours(result: Result) -> str:
    """How many times slower calls are beside a busy process, and beside another library's threads."""
    rows = [["net, threads", "beside", "call", "alone, ms", "times slower"]]
    for key, entry in result.items():
        for place, calls in entry.items():
            if place == "machine":
                continue
            for call, found in calls.items():
                alone = milliseconds(found["alone, ms"])
                rows.append([key, place, call, alone, f"**{found['times']:.2f}**"])
    return f"{table(rows, left=3)}\n\n`benchmarks/neighbours.py` on {places(list(result.values()))}."


def levels(result: Result) -> str:
    """Each net with the kernels for each level of x86-64, against those compiled for the processor."""
    nets = {name: entry for name, entry in result.items() if name != "machine"}
    names = list(next(iter(nets.values()))["losses differ by"])
    rows = [["net, batch", *names]]
    for net, entry in nets.items():
        for phase in ("training", "inference"):
            rows.append([f"{net}, {phase}, ms", *(milliseconds(entry[f"{phase}, ms"][n]) for n in names)])
        differ = (entry["losses differ by"][n] for n in names)
        rows.append([f"{net}, losses differ by", *(f"{found:.0e}" if found else "0" for found in differ)])
    return f"{table(rows)}\n\n`benchmarks/levels.py` on {where(result)}."
