"""One command for a machine with an NVIDIA GPU: builds, tests, times, and writes a report.

It builds the cuda module for this card, runs the suite on it in float32 and float64, and lets
compute-sanitizer look for bad accesses and races, if that is installed.  Then it times operations, whole
training steps and inference in float32, TF32 and bfloat16, beside torch in every way that people run it:
eager, channels-last, a whole step captured as a CUDA graph, torch.compile; and making a recipe's batches,
beside its step.  Last it lists the kernels of steps, and trains a recipe.  It needs no network, but the
recipe needs Fashion-MNIST in data/.  It writes gpu.json and gpu.txt, which name the device.

Each section is a process of its own, which is stopped at its share of --minutes.  The report lists the
sections that were stopped or left out.

    python scripts/gpu.py [--out DIR] [--minutes 8] [--sections NAME ...] [--nets NAME ...]
        [--precisions NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from scripts import gpu_report  # noqa: E402 - after the path is set
from scripts.gpu_turns import Turns, run_all  # noqa: E402 - likewise

STAGES = {  # sections that run at the same time, and their share of --minutes in hundredths
    ("build",): 23,
    ("tests", "memcheck", "racecheck"): 20,
    ("operations",): 7,
    ("steps",): 16,
    ("batches",): 2,
    ("compiled",): 18,
    ("profile",): 5,
    ("training",): 9,
}
SECTIONS = tuple(name for stage in STAGES for name in stage)
NETS = ("simple_cnn", "resnet20", "vgg_like", "fast_cnn", "lenet5", "resnet18", "resnet50")
PROFILED = NETS[:4]
PRECISIONS = ("float32", "tf32", "bfloat16")
PREPARING = 0.75  # of a section's time; whoever compiles longer is left out
FAILED = ("failed", "stopped")


def main(argv: list[str] | None = None) -> None:
    args = parsed(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = args.out / "rows.jsonl"
    if args.child:
        run_child(args, rows)
        return
    start = time.monotonic()
    rows.unlink(missing_ok=True)
    build_for_this_card()
    sections = run_stages(args, start)
    lines = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    rows.unlink(missing_ok=True)
    (args.out / "turns").unlink(missing_ok=True)
    report = gpu_report.assembled(lines, sections, args.sections)
    report["minutes"] = round((time.monotonic() - start) / 60, 2)
    (args.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "gpu.txt").write_text(gpu_report.text(report))
    print(gpu_report.text(report), end="")
    if any(done["status"] in FAILED for done in sections.values()):
        raise SystemExit(1)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument(
        "--minutes", type=float, default=8, help="end within this time, even if something must be left out"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=600, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_stages(args: argparse.Namespace, start: float) -> dict[str, dict[str, Any]]:
    """Run the chosen sections, stage by stage; what became of each."""
    chosen = {
        stage: share
        for stage, share in STAGES.items()
        if any(name in args.sections for name in stage)
    }  # fmt: skip
    done: dict[str, dict[str, Any]] = {}
    passed = 0
    for stage, share in chosen.items():
        passed += share
        left = start + 60 * args.minutes * passed / sum(chosen.values()) - time.monotonic()
        names = [name for name in stage if name in args.sections]
        print(f"{', '.join(names)}: at most {max(0, left):.0f} s", file=sys.stderr, flush=True)
        with ThreadPoolExecutor() as pool:
            results = pool.map(partial(section, args=args, seconds=left), names)
            done |= zip(names, results, strict=True)
        if done.get("build", {}).get("status") in FAILED:
            break
    return done


def build_for_this_card() -> None:
    """Let the compiler build for this card alone, unless TORCH_CUDA_ARCH_LIST is set."""
    smi = shutil.which("nvidia-smi")
    if smi is None or "TORCH_CUDA_ARCH_LIST" in os.environ:
        return
    done = subprocess.run(
        [smi, "--query-gpu=compute_cap", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = done.stdout.split()
    if done.returncode == 0 and found:
        os.environ["TORCH_CUDA_ARCH_LIST"] = found[0]


# ---- a section from outside: a process with a time limit --------------------------------------------


def section(name: str, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run a section as a process for at most ``seconds``; returns its status, last line and time."""
    if name == "tests":
        if find_spec("pytest") is None:
            return {"status": "left out", "note": "pytest is not installed", "seconds": 0.0}
        return run(tests_command(), seconds, MINICNN_TEST_BACKENDS="cuda")
    if name in ("memcheck", "racecheck"):
        tool = shutil.which("compute-sanitizer")
        if tool is None:
            return {"status": "left out", "note": "compute-sanitizer is not installed", "seconds": 0.0}
        # Without torch's cache of memory each array has a place of its own, with nothing behind it.
        return run(
            [tool, "--tool", name, "--error-exitcode", "1", *child_command("watched", args)],
            seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        )  # fmt: skip
    return run([*child_command(name, args), "--seconds", str(seconds)], seconds)


def tests_command() -> list[str]:
    """The suite on the card; every test of an operation runs in float32 and in float64."""
    # pytest-benchmark warns of xdist, and a warning is an error.
    jobs = str(min(12, os.cpu_count() or 1))
    workers = ["-n", jobs, "-p", "no:benchmark"] if find_spec("xdist") else []
    ignored = [f"--ignore=tests/test_cuda_{name}.py" for name in ("emulation", "sanitizers", "module")]
    return [sys.executable, "-m", "pytest", "-q", "--maxfail=30", *workers, "tests", "-k", "cuda", *ignored]


def child_command(name: str, args: argparse.Namespace, **lists: list[str]) -> list[str]:
    """This script as the process of a section, for all nets and precisions that were asked for."""
    chosen = {"nets": args.nets, "precisions": args.precisions} | lists
    options = [part for option, values in chosen.items() for part in (f"--{option}", *values)]
    return [
        sys.executable, str(Path(__file__).resolve()), "--child", name, "--out", str(args.out), *options
    ]  # fmt: skip


def run(command: list[str], seconds: float, **environment: str) -> dict[str, Any]:
    """Run a command; when the time is over, kill it and every process that it has started."""
    if seconds <= 0:
        return {"status": "left out", "note": "no time was left", "seconds": 0.0}
    start = time.monotonic()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, **environment}, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=seconds)
        status = "done" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        status = "stopped"
    if status != "done":
        print(printed[-4000:], file=sys.stderr)
    note = (printed.strip().splitlines() or [""])[-1]
    return {"status": status, "note": note, "seconds": round(time.monotonic() - start, 1)}


# ---- a section from inside ---------------------------------------------------------------------------

Keep = Callable[[dict[str, Any]], None]


def run_child(args: argparse.Namespace, rows: Path) -> None:
    """Run a section in this process.  Each row is written at once, so that none is lost in a kill."""

    def keep(row: dict[str, Any]) -> None:
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")

    CHILDREN[args.child](args, keep)


def build(_args: argparse.Namespace, keep: Keep) -> None:
    from minicnn.backends import cuda_build, get_backend

    reason = None if cuda_build.emulated() else cuda_build.missing_gpu()
    if reason is not None:
        raise SystemExit(reason)
    keep(machine())
    get_backend("cuda")


def machine() -> dict[str, Any]:
    """The device and the versions that the numbers belong to."""
    import torch

    from minicnn.backends import cuda_build

    about = {"torch": torch.__version__, "python": sys.version.split()[0], "cuda": torch.version.cuda}
    if cuda_build.emulated():
        return {"device": cuda_build.label(), **about}
    return {
        "device": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(),
        "cudnn": torch.backends.cudnn.version(), **about,
    }  # fmt: skip


def watched(_args: argparse.Namespace, _keep: Keep) -> None:
    """What compute-sanitizer watches."""
    for line in timings("gpu_nets").small_steps():
        print(line, flush=True)


def operations(args: argparse.Namespace, keep: Keep) -> None:
    keep(machine())
    timings("gpu_operations").operations(keep, args.precisions)


def steps(args: argparse.Namespace, keep: Keep) -> None:
    """A process for each net, so that one that fails takes no other with it."""
    commands = {
        net: [*child_command("net", args, nets=[net]), "--seconds", str(PREPARING * args.seconds)]
        for net in args.nets
    }
    in_turn(commands, args, keep)


def compiled(args: argparse.Namespace, keep: Keep) -> None:
    """A process for each net and precision: torch compiles on all cores."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    commands = {
        f"torch.compile of {net} in {precision}": [
            *child_command("compiled net", args, nets=[net], precisions=[precision]),
            "--seconds", str(PREPARING * args.seconds),
        ]
        for net, precision in product(args.nets, args.precisions)
    }  # fmt: skip
    in_turn(commands, args, keep)


def in_turn(commands: dict[str, list[str]], args: argparse.Namespace, keep: Keep) -> None:
    keep(machine())
    failed = run_all(commands, PREPARING * args.seconds)
    for name, reason in failed.items():
        keep({"note": f"{name}: {reason}"})
    print(f"{len(commands) - len(failed)} of {len(commands)} processes measured")


def one_net(args: argparse.Namespace, keep: Keep) -> None:
    with Turns(args.out / "turns", args.seconds) as turns:
        timings("gpu_nets").steps(keep, args.nets[0], args.precisions, turns.alone)


def one_compiled(args: argparse.Namespace, keep: Keep) -> None:
    with Turns(args.out / "turns", args.seconds) as turns:
        timings("gpu_nets").compiled(keep, args.nets[0], args.precisions[0], turns.alone)


def batches(args: argparse.Namespace, keep: Keep) -> None:
    keep(machine())
    for precision in args.precisions:
        timings("gpu_batches").batches(keep, precision)


def profile(args: argparse.Namespace, keep: Keep) -> None:
    keep(machine())
    for net in [name for name in PROFILED if name in args.nets]:
        timings("gpu_profile").profile(keep, net, args.precisions)


def training(args: argparse.Namespace, keep: Keep) -> None:
    keep(machine())
    for precision in args.precisions:
        timings("gpu_training").training(keep, precision)


def timings(module: str) -> Any:
    """A module of this folder, imported late because it imports torch."""
    return importlib.import_module(f"scripts.{module}")


CHILDREN: dict[str, Callable[[argparse.Namespace, Keep], None]] = {
    "build": build, "watched": watched, "operations": operations, "steps": steps, "net": one_net,
    "batches": batches, "compiled": compiled, "compiled net": one_compiled, "profile": profile,
    "training": training,
}  # fmt: skip


if __name__ == "__main__":
    main()
