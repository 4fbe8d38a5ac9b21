"""Feeds damaged files to readers and commands: a result or the documented error, no hang, no undue memory.

Each input is a valid file with bits flipped, bytes, lengths and pieces changed, cut or appended, of gzipped
ones either the packed or the unpacked bytes, of checkpoints also with a checksum that is right again.  A
reader may return or raise ValueError or OSError.  A failure is any other exception, more than SECONDS, the
death of the process, or a peak of memory above what the reader may take for any file and for a byte of the
file: of resident memory, and of address space, beyond which allocations fail.  Needs Linux.

    python scripts/fuzz_readers.py [--inputs 1000000] [--readers NAME ...] [--first 0] [--save]

Input number n of a reader is always the same, so --first N --inputs 1 repeats one.  The inputs are shared
out over the readers.  --save writes benchmarks/results/fuzz.json; exit status 1 if a reader failed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "benchmarks"),
    str(ROOT / "scripts"),
]  # this checkout, installed or not

import numpy as np  # noqa: E402 - after the path is set
from fuzz_commands import TARGETS  # noqa: E402 - likewise
from fuzz_targets import Target, mutated  # noqa: E402 - likewise

SECONDS = 5  # of the processor
ADDRESS_SPACE = 1 << 30
"""Bytes of address space that may be asked for beyond what the process has; for images it may be more."""

MOST_SHOWN = 20
PATIENCE = 120
"""Seconds in which a process must get on to its next input."""


class TooLong(BaseException):
    """An input took more than SECONDS."""


def peak_memory(*, reset: bool = False) -> int:
    """Bytes of resident memory: the most since the last reset, as the kernel counts it."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


def try_input(target: Target, path: Path) -> str:
    """Read one file.  Returns "read", "refused", or what is wrong."""
    before = peak_memory(reset=True)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    outcome = "read"
    try:
        try:
            target.read(path)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (ValueError, OSError) as error:
        outcome = "refused" if target.verified or not _starved(error) else "asked for too much memory"
    except TooLong:
        outcome = f"took more than {SECONDS} s"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"[:200]
    extra = peak_memory() - before
    if extra > target.memory_of_any_file + target.memory_a_byte * path.stat().st_size:
        return f"took {extra >> 20} MiB for a file of {path.stat().st_size} bytes"
    return outcome


def _starved(error: BaseException | None) -> bool:
    """Whether an allocation failed on the way to this error."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def work(name: str, numbers: range, at: Any, results: Any) -> None:
    """In a process of its own: try inputs; ``at`` is the number of the one being tried."""
    faulthandler.enable()
    signal.signal(signal.SIGPROF, _too_long)
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        samples = target.samples(Path(folder))
        for sample in samples:
            path = Path(folder) / f"whole{sample.suffix}"
            path.write_bytes(sample.seal(sample.content))
            with contextlib.nullcontext() if sample.valid else contextlib.suppress(ValueError, OSError):
                target.read(path)  # what is imported late is there from now on
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        more = max(ADDRESS_SPACE, 2 * target.memory_of_any_file)
        resource.setrlimit(resource.RLIMIT_AS, (size + more, resource.RLIM_INFINITY))
        counts: Counter[str] = Counter()
        for number in numbers:
            at.value = number
            generator = np.random.default_rng([len(name), sum(name.encode()), number])
            sample = samples[number % len(samples)]
            path = Path(folder) / f"input{sample.suffix}"
            path.write_bytes(mutated(sample, generator))
            counts[outcome := try_input(target, path)] += 1
            if outcome not in ("read", "refused"):
                results.put(f"{name}, input {number}: {outcome}")
    results.put(dict(counts))


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TooLong


def fuzz(name: str, first: int, inputs: int) -> dict[str, Any]:
    """The counts of one reader, and its failures."""
    context = multiprocessing.get_context("spawn")
    failures: list[str] = []
    counts: Counter[str] = Counter()
    begin, last = first, first + inputs
    start = time.monotonic()
    while begin < last:
        at, results = context.Value("l", begin), context.Queue()
        process = context.Process(target=work, args=(name, range(begin, last), at, results))
        process.start()
        seen, watched = begin, time.monotonic()
        while process.is_alive() or not results.empty():
            process.join(0.05)
            while not results.empty():
                found = results.get()
                counts.update(found) if isinstance(found, dict) else failures.append(found)
            if at.value != seen:
                seen, watched = at.value, time.monotonic()
            elif time.monotonic() - watched > PATIENCE:  # it waits, or is in code that no signal reaches
                process.kill()
        begin = last
        if process.exitcode == 1:
            raise RuntimeError(f"{name}: cannot be tried: see above")
        if process.exitcode:
            failures.append(f"{name}, input {at.value}: the process ended with {process.exitcode}")
            begin = at.value + 1
    return {
        "inputs": inputs, "read": counts["read"], "refused": counts["refused"],
        "failures": len(failures), "first failures": failures[:MOST_SHOWN],
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def main() -> None:
    """Print and maybe save the counts; exit status 1 if a reader failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, over all readers")
    parser.add_argument("--readers", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of each reader's first input")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results")
    args = parser.parse_args()
    if args.save and set(args.readers) != set(TARGETS):
        parser.error("--save: expected all readers, since the result replaces the saved one")
    found = {}
    shares = sum(TARGETS[name].share for name in args.readers)
    for name in args.readers:
        inputs = max(1, round(args.inputs * TARGETS[name].share / shares))
        found[name] = fuzz(name, args.first, inputs)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    if args.save:
        from paired import machine, save

        total = {key: sum(one[key] for one in found.values()) for key in ("inputs", "failures")}
        save("fuzz", {"machine": machine(1)} | total | {"readers": found})
    sys.exit(any(one["failures"] for one in found.values()))


if __name__ == "__main__":
    main()
