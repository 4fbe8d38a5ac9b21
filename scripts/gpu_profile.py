"""The section "profile" of scripts/gpu.py: where the time of a training step goes, kernel by kernel.

torch's profiler records the kernels of some steps, ours and those of a step of torch that is captured as
a CUDA graph.  A gap is a time between the first and the last kernel in which none runs.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scripts import gpu_nets
from scripts.gpu_timings import Keep, Row, Work, synchronize

STEPS = 5
ON_THE_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
LONGEST_NAME = 140
KERNELS_KEPT = 25
PEER = "captured channels-last"

Event = dict[str, Any]


def profile(keep: Keep, name: str, precisions: list[str]) -> None:
    """A net's training steps, ours and the peer's, in each precision."""
    net = gpu_nets.subject(name)
    for precision in precisions:
        sides = {
            gpu_nets.OURS: partial(gpu_nets.our_run, net, precision),
            PEER: partial(gpu_nets.torch_step, net, precision, gpu_nets.EAGER_WAYS[PEER]),
        }
        for side, make in sides.items():
            about = {"profile": net.name, "precision": precision, "side": side}
            work = partial(_keep_summary, keep, about, make)
            gpu_nets.attempt(keep, net.name, precision, f"profile of {side}", work)


def _keep_summary(keep: Keep, about: Row, make: Callable[[], Work]) -> None:
    keep(about | summary(events(make()), STEPS))


def events(work: Work) -> list[Event]:
    """What the device did in STEPS calls."""
    for _ in range(3):
        work()
    synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as recorded:
        for _ in range(STEPS):
            work()
        synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        found = json.loads(path.read_text())["traceEvents"]
    return [event for event in found if event.get("cat") in ON_THE_DEVICE]


def summary(events: Iterable[Event], steps: int) -> Row:
    """A step's launches, and its milliseconds: from the first kernel to the last, in gaps, by kernel."""
    ordered = sorted(events, key=lambda event: event["ts"])
    if not ordered:
        raise ValueError("the profiler recorded no kernel")
    begin, busy_until, gaps = ordered[0]["ts"], ordered[0]["ts"], 0.0
    by_kernel: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for event in ordered:
        gaps += max(0.0, event["ts"] - busy_until)
        busy_until = max(busy_until, event["ts"] + event["dur"])
        launches_and_time = by_kernel[short(event["name"])]
        launches_and_time[0] += 1 / steps
        launches_and_time[1] += event["dur"] / 1000 / steps
    kernels = sorted(by_kernel.items(), key=lambda item: -item[1][1])
    whole = (busy_until - begin) / 1000 / steps
    return {
        "launches": round(len(ordered) / steps, 1), "whole": round(whole, 4),
        "gaps": round(gaps / 1000 / steps, 4),
        "kernels": [[name, round(count, 1), round(ms, 4)] for name, (count, ms) in kernels[:KERNELS_KEPT]],
    }  # fmt: skip


def short(name: str) -> str:
    """A kernel's name without what all have in common."""
    name = re.sub(r"^void |minicnn::|cuda::|\(anonymous namespace\)::", "", name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
