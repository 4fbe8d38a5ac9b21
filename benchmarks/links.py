"""How long gradients take between processes, by a link's latency and bandwidth; what is told of that."""

from __future__ import annotations

from math import log2
from typing import NamedTuple

from results import Result, milliseconds, table, where

from minicnn.distributed.torch_group import HALVED_FROM

WORKERS = tuple(2**power for power in range(11))
"""1 to 1,024."""


class Link(NamedTuple):
    """What a message of n bytes takes: ``latency`` + n / ``bandwidth`` seconds."""

    latency: float
    bandwidth: float


LINKS = {"10 Gbit/s, 50 µs": Link(50e-6, 1.25e9), "100 Gbit/s, 5 µs": Link(5e-6, 12.5e9)}


def ours(workers: int, size: float, link: Link) -> float:
    """Seconds of the ordered sum of a row of ``size`` bytes: see `TorchGroup.add`."""
    levels = log2(workers)
    if workers <= 2 or size < 4 * HALVED_FROM:
        return levels * (link.latency + size / link.bandwidth)
    return 2 * levels * link.latency + 2 * (1 - 1 / workers) * size / link.bandwidth


def ring(workers: int, size: float, link: Link) -> float:
    """Seconds of 2 (W - 1) messages of a W-th of the row each.  Source: Patarasu and Yuan 2009."""
    return 2 * (workers - 1) * (link.latency + size / workers / link.bandwidth)


def tree(workers: int, size: float, link: Link) -> float:
    """Seconds of a sum up a binary tree and of a broadcast down."""
    return 2 * log2(workers) * (link.latency + size / link.bandwidth)


WAYS = {"ours": ours, "ring": ring, "tree": tree}


def fitted(times: dict[int, float]) -> Link:
    """The link whose exchanges of so many bytes take these seconds: the smallest and the largest one."""
    small, large = min(times), max(times)
    per_byte = (times[large] - times[small]) / (large - small)
    return Link(max(0.0, times[small] - small * per_byte), 1 / per_byte)


def efficiency(net: Result, workers: int, way: str, link: Link) -> float:
    """The share of W workers' time that is not spent on gradients, if each has the measured batch.

    Nothing overlaps here, so a sum during the backward pass can only be better.
    """
    step = net["milliseconds"]["1 process, 1 thread"] / 1e3
    return step / (step + WAYS[way](workers, net["bytes"], link))


def scaling(result: Result) -> str:
    """Two processes against one of two threads and against DistributedDataParallel; what is predicted."""
    rows = [["net, images a step", "1 process, 2 threads, ms", "2 processes, ordered", "2, fast",
             "2, PyTorch DDP", "efficiency", "DDP / ordered"]]  # fmt: skip
    for name, net in result["nets"].items():
        ms = net["milliseconds"]
        one, two, ddp = (
            ms[side]
            for side in ("1 process, 2 threads", "2 processes, ordered", "2 processes, PyTorch DDP")
        )
        shown = [milliseconds(t) for t in (one, two, ms["2 processes, fast"], ddp)]
        rows.append([f"{name}, {net['batch']}", *shown, f"{one / two:.2f}", f"{ddp / two:.2f}"])
    told = [table(rows), ""]
    rows = [["net", "MB of gradients", *(f"{way}, {w}, {link}" for link in LINKS for w in (64, 1024)
                                         for way in ("ours", "ring"))]]  # fmt: skip
    for name, net in result["nets"].items():
        shares = [
            f"{efficiency(net, w, way, link):.0%}"
            for link in LINKS.values()
            for w in (64, 1024)
            for way in ("ours", "ring")
        ]
        rows.append([name, f"{net['bytes'] / 1e6:.2f}", *shares])
    told += [
        "Predicted efficiency, if each worker has that batch and one thread:", "",
        "![predicted efficiency against the number of workers](images/scaling.png)", "", table(rows), "",
    ]  # fmt: skip
    checks = ", ".join(
        f"{workers} processes {1e3 * check['measured']:.2f} ms (predicted {1e3 * check['predicted']:.2f})"
        for workers, check in result["exchange"].items()
    )
    told.append(
        f"The exchange of {result['exchange_bytes'] / 1e6:.1f} MB between processes of this machine, where "
        f"the link is fitted to 2: {checks}. `benchmarks/scaling.py`, on {where(result)}."
    )
    return "\n".join(told)


def parts(result: Result) -> str:
    """Where a step of two processes spends its time, and what of it no order of sums could save."""
    one, two = (result["sides"][side] for side in ("1 process, 2 threads", "2 processes"))
    rows = [["net", "forward, ms", "backward", "optimizer", "wait for sums", "rest", "all",
             "MB both ways", "by gloo alone, ms", "of which work", "efficiency", "at most"]]  # fmt: skip
    for name, net in two.items():
        single, step, exchange = one[name]["step"], net["step"], net["exchange"]
        computed = ("forward", "backward", "optimizer")
        shown = [f"{milliseconds(single[part])} / {milliseconds(step[part])}" for part in computed]
        rest = step["all"] - step["wait"] - sum(step[part] for part in computed)
        shown += [milliseconds(step["wait"]), milliseconds(rest)]
        shown += [f"{milliseconds(single['all'])} / {milliseconds(step['all'])}"]
        shown += [f"{net['bytes'] / 1e6:.2f}", milliseconds(exchange["all"])]
        shown += [milliseconds(exchange["processor"]), f"{single['all'] / step['all']:.2f}"]
        rows.append([name, *shown, f"{single['all'] / (single['all'] + exchange['processor']):.2f}"])
    told = (
        "Pairs are one process of two threads / two processes of one. Then gloo alone sends as many bytes "
        "both ways, in so many milliseconds; the work of it is what no order of sums can hide, and gives "
        f"the efficiency at most. `benchmarks/process_parts.py`, on {where(result)}."
    )
    return f"{table(rows)}\n\n{told}"
