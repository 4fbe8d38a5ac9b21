"""Kills training with SIGKILL at random moments, resumes it, and compares its end with a run's left alone.

Each trial is a run of what `python -m minicnn.train` runs, in processes forked from one that imported it,
and in a folder of its own.  It is killed once or more: at a moment drawn from its start and training,
now and then from its report too, or at the first write of a file after that moment.  It is resumed until it
ends, and then every file must be what the undisturbed run left, bit for bit, but for the times in it, and
nothing else may lie there.  A difference ends the script with exit status 1.

    python scripts/kill_resume.py [--times 100] [--first 0] [--save]

--save writes benchmarks/results/kill_resume.json; with --first it adds the trials that it continues.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from minicnn import checkpoint  # noqa: E402 - after the path is set
from minicnn.app.run_folder import BEST, CHECKPOINT, PAGE  # noqa: E402

Result = dict[str, Any]

EPOCHS = 4
SETTINGS = [
    "--model", "lenet5", "--limit-train", "64", "--limit-test", "32", "--batch-size", "8",
    "--epochs", str(EPOCHS), "--backend", "numpy", "--threads", "1", "--save-every", "0",
]  # fmt: skip
TIMES = ("seconds", "images_per_second", "time")
SAVED_FROM = 100
MOST_KILLS = 3
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["minicnn.train", "minicnn.app.report", "minicnn.distributed.torch_group",
                              "sklearn.metrics", "matplotlib.figure",
                              "matplotlib.backends.backend_agg", "safetensors.numpy"])  # fmt: skip
PATIENCE = 600
"""Seconds after which a run that has not ended hangs."""


def start(folder: Path) -> BaseProcess:
    """Begin the run of this folder, or go on with it."""
    process = FORKS.Process(target=command, args=([*SETTINGS, "--resume", "--out", str(folder)],))
    process.start()
    return process


def command(arguments: list[str]) -> None:
    """What `python -m minicnn.train` does, errors apart silently."""
    from minicnn import train
    from minicnn.app.command_line import exit_with

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    exit_with(lambda: train.main(arguments))


def end(process: BaseProcess) -> None:
    """Wait for a run that is left alone.  Raises RuntimeError if it fails; it says why on stderr."""
    process.join(PATIENCE)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"exit status {process.exitcode}")


def kill(folder: Path, moment: float, in_write: bool) -> str | None:
    """Go on with a run, and SIGKILL it after ``moment`` seconds, or then at the next write.

    Returns what it was doing; None if it had ended before.
    """
    left = _asides(folder)
    process = start(folder)
    process.join(moment)
    while in_write and process.is_alive() and _asides(folder) <= left:
        time.sleep(0.0002)
    process.kill()
    process.join(PATIENCE)
    if process.exitcode != -signal.SIGKILL:
        return None
    when = "between two writes" if _asides(folder) <= left else "while a file was written"
    file = folder / "checkpoint.safetensors"
    if not file.exists():
        return f"before the first checkpoint, {when}"
    done = checkpoint.load(file).epoch == EPOCHS  # raises if it is torn
    return f"{'in the report' if done else 'in training'}, {when}"


def trial(folder: Path, spans: tuple[float, float], generator: np.random.Generator) -> list[str]:
    """One run, killed and resumed until it ends; when it was killed.

    ``spans`` are the seconds that an undisturbed run takes to the end of its training, and in all.
    """
    kills: list[str] = []
    while len(kills) < MOST_KILLS and (not kills or generator.random() < 0.3):
        moment = generator.uniform(0, generator.choice(spans, p=[0.8, 0.2]))
        in_write = generator.random() < 0.5
        when = kill(folder, moment, in_write)
        if when is not None:
            kills.append(when)
        elif not kills:  # it ended before: once more from the beginning
            for path in folder.iterdir():
                path.unlink()
    end(start(folder))
    return kills


def differences(folder: Path, reference: Path) -> list[str]:
    """What distinguishes two folders of runs, apart from times: nothing, if all is well."""
    names = {p.name for p in folder.iterdir()}, {p.name for p in reference.iterdir()}
    found = [f"{name} is in one of them only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        here, there = _content(folder / name), _content(reference / name)
        found += [f"{name}: {part} differs" for part in there if here.get(part) != there[part]]
        found += [f"{name}: {part} is unexpected" for part in here.keys() - there.keys()]
    return found


def _content(path: Path) -> dict[str, Any]:
    """A file's parts, without times; arrays as their bytes."""
    if path.name in (CHECKPOINT, BEST):
        state = asdict(checkpoint.load(path))
        state["sums"].pop("seconds")
        state["history"] = [_timeless(entry) for entry in state["history"]]
        for group in ("model", "training", "optimizer"):
            for name, a in state.pop(group).items():
                state[f"{group}.{name}"] = (a.dtype.str, a.shape, a.tobytes())
        return state
    if path.suffix == ".jsonl":
        return dict(enumerate(_timeless(json.loads(line)) for line in path.read_text().splitlines()))
    if path.name == PAGE:  # it is made of the other files, and full of times
        return {}
    if path.name == "config.json":
        return _timeless(json.loads(path.read_text()))
    return {"content": path.read_bytes()}


def _timeless(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in TIMES}


def _asides(folder: Path) -> set[str]:
    """The files that a run writes aside at this moment, or did when it was killed."""
    return {path.name for path in folder.glob(".*.tmp")}


def run(trials: range, folder: Path) -> dict[str, Any]:
    """These trials, each with a seed of its own number, in this folder; the counts, and what differed."""
    reference = folder / "undisturbed"
    warm = FORKS.Process(target=int)  # the imports are done then, and count for nothing
    warm.start()
    end(warm)
    began = time.time()
    end(start(reference))
    spans = (reference / "checkpoint.safetensors").stat().st_mtime - began, time.time() - began
    kills: Counter[str] = Counter()
    differing: dict[str, list[str]] = {}
    for number in trials:
        out = folder / str(number)
        out.mkdir()
        kills.update(trial(out, spans, np.random.default_rng(number)))
        if found := differences(out, reference):
            differing[str(number)] = found
            print(f"trial {number}: {'; '.join(found)}", flush=True)
    return {
        "settings": " ".join(SETTINGS), "trials": len(trials), "kills": kills.total(),
        "killed": dict(sorted(kills.items())), "same end, bit for bit": len(trials) - len(differing),
        "differences": differing,
    }  # fmt: skip


def joined(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The result of trials in two parts."""
    both = dict(later)
    for key in ("trials", "kills", "same end, bit for bit"):
        both[key] += earlier[key]
    both["killed"] = dict(sorted((Counter(earlier["killed"]) + Counter(later["killed"])).items()))
    both["differences"] = earlier["differences"] | later["differences"]
    return both


def tell(
    name: str, doc: str, trials: str, drawn: str, run: Callable[[range, Path], Result],
    joined: Callable[[Result, Result], Result] | None = None,
) -> None:  # fmt: skip
    """The command of a script of trials: print the counts; exit status 1 if one end differs.

    Args: name of the result · doc the script's · trials, drawn what they are for --help, and what the
          number of one decides · run the trials of a range in a folder · joined adds a result to an
          earlier one, which --first continues
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--times", type=int, default=100, help=f"how many runs {trials}")
    parser.add_argument("--first", type=int, default=0, help=f"number of the first; decides its {drawn}")
    parser.add_argument("--save", action="store_true", help="write the result to benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(range(args.first, args.first + args.times), Path(folder))
    if args.save:
        from paired import RESULTS, machine, save

        result = {"machine": machine(1)} | result
        if args.first and joined:
            earlier = json.loads((RESULTS / f"{name}.json").read_text())
            if (earlier["trials"], earlier["machine"]) != (args.first, result["machine"]):
                sys.exit(f"{name}.json: expected {args.first} trials of the same code and machine")
            result = joined(earlier, result)
        save(name, result)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["differences"]))


if __name__ == "__main__":
    tell("kill_resume", __doc__, "to kill and resume", "moments", run, joined)
