"""One command for a machine with an NVIDIA GPU: builds, tests, times, and writes a report.

It builds the cuda module for this card and runs the suite on it in float32 and float64.  Then it times
operations, whole training steps and inference against torch (cuDNN eager, channels-last, torch.compile;
TF32 off and on), with CUDA events, after a warm-up and with cold caches.  Last it runs compute-sanitizer,
if that is installed.  It needs no network.  It writes gpu.json and gpu.txt, which name the device.

Each section is a process of its own, which is stopped at its share of --minutes.  The report lists the
sections that were stopped or left out.

    python scripts/gpu.py [--out DIR] [--minutes 8] [--sections NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this checkout, installed or not
SHARES = {  # the time by which each section must have ended, as a share of --minutes
    "build": 0.40, "tests": 0.60, "operations": 0.72, "steps": 0.84, "compiled": 0.93, "sanitizer": 0.98,
}  # fmt: skip
PEERS = ("torch", "torch channels-last", "torch.compile")
FAILED = ("failed", "stopped")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument(
        "--minutes", type=float, default=8, help="end within this time, even if something must be left out"
    )
    parser.add_argument("--sections", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--child", choices=("build", "operations", "steps", "compiled"),
                        help=argparse.SUPPRESS)  # fmt: skip
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = args.out / "rows.jsonl"
    if args.child:
        run_child(args.child, rows)
        return
    start = time.monotonic()
    rows.unlink(missing_ok=True)
    build_for_this_card()
    report: dict[str, Any] = {"sections": {}, "rows": []}
    for name in args.sections:
        left = start + 60 * args.minutes * SHARES[name] - time.monotonic()
        print(f"{name}: at most {max(0, left):.0f} s", file=sys.stderr, flush=True)
        report["sections"][name] = section(name, args.out, left)
        if name == "build" and report["sections"][name]["status"] in FAILED:
            break
    lines = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    rows.unlink(missing_ok=True)
    report |= next((line for line in lines if "device" in line), {"device": "no device"})
    report["rows"] = merged([line for line in lines if "what" in line])
    report["left_out"] = left_out(report["sections"])
    report["minutes"] = round((time.monotonic() - start) / 60, 2)
    (args.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "gpu.txt").write_text(table(report))
    print(table(report), end="")
    if any(done["status"] in FAILED for done in report["sections"].values()):
        raise SystemExit(1)


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


# ---- sections --------------------------------------------------------------------------------------


def section(name: str, out: Path, seconds: float) -> dict[str, Any]:
    """Run a section as a process for at most ``seconds``; returns its status, last line and time."""
    if name in ("tests", "sanitizer"):
        tool = shutil.which("compute-sanitizer")
        lacking = "pytest" if find_spec("pytest") is None else "compute-sanitizer"
        if lacking == "pytest" or (name == "sanitizer" and tool is None):
            return {"status": "left out", "note": f"{lacking} is not installed", "seconds": 0.0}
        command = tests_command() if tool is None or name == "tests" else sanitizer_command(tool)
        return run(command, seconds, MINICNN_TEST_BACKENDS="cuda")
    return run([sys.executable, str(Path(__file__).resolve()), "--child", name, "--out", str(out)], seconds)


def tests_command() -> list[str]:
    """The suite on the card; every test of an operation runs in float32 and in float64."""
    # pytest-benchmark warns of xdist, and a warning is an error.
    jobs = str(min(4, os.cpu_count() or 1))
    workers = ["-n", jobs, "-p", "no:benchmark"] if find_spec("xdist") else []
    ignored = [f"--ignore=tests/test_cuda_{name}.py" for name in ("emulation", "sanitizers", "module")]
    return [sys.executable, "-m", "pytest", "-q", "--maxfail=30", *workers, "tests", "-k", "cuda", *ignored]


def sanitizer_command(tool: str) -> list[str]:
    """Some of the tests under compute-sanitizer, which looks for races in shared memory."""
    some = "cuda and float32 and (conv2d or flatten or batch_norm) and not backward"
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "tests/test_ops.py", "-k", some]
    return [tool, "--tool", "racecheck", "--error-exitcode", "1", *pytest]


def run(command: list[str], seconds: float, **environment: str) -> dict[str, Any]:
    """Run a command; when the time is over, kill it and every process that it has started."""
    if seconds <= 0:
        return {"status": "left out", "note": "no time was left", "seconds": 0.0}
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
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


def run_child(name: str, rows: Path) -> None:
    """Run a section in this process.  Each row is written at once, so that none is lost in a kill."""

    def keep(row: dict[str, Any]) -> None:
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")

    from minicnn.backends import cuda_build, get_backend

    reason = None if cuda_build.emulated() else cuda_build.missing_gpu()
    if reason is not None:
        raise SystemExit(reason)
    keep(machine())
    get_backend("cuda")  # builds the module if that has not been done
    if name == "build":
        return
    from scripts import gpu_timings

    gpu_timings.SECTIONS[name](keep)


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


# ---- the report ------------------------------------------------------------------------------------


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the rows that different sections have for the same thing."""
    together: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for row in rows:
        together.setdefault((row["what"], row["phase"], row["tf32"]), {}).update(row)
    return list(together.values())


def left_out(sections: dict[str, dict[str, Any]]) -> list[str]:
    """The sections that did not run, or not to their end, and why."""
    reasons = {"left out": "{note}", "stopped": "stopped after {seconds:.0f} s", "failed": "failed: {note}"}
    return [
        *(f"{name}: {reasons[done['status']].format(**done)}" for name, done in sections.items()
          if done["status"] in reasons),
        *(f"{name}: not begun" for name in SHARES if name not in sections),
    ]  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The report as text.  A ratio is torch's best time divided by minicnn's."""
    lines = [
        f"{report['device']}, torch {report.get('torch')}, CUDA {report.get('cuda')}, "
        f"Python {report.get('python')}; milliseconds, medians",
        f"{'':36} {'':10} {'':5} {'minicnn':>9} " + " ".join(f"{peer:>19}" for peer in PEERS)
        + f" {'best / minicnn':>15} {'error':>9}",
    ]  # fmt: skip
    for row in report["rows"]:
        times = [row[peer] for peer in PEERS if peer in row]
        cells = [f"{row[peer]:19.3f}" if peer in row else f"{'-':>19}" for peer in PEERS]
        ours = row.get("minicnn")
        ratio = f"{min(times) / ours:15.2f}" if ours and times else f"{'-':>15}"
        wrong = f"{row['error']:9.1e}" if "error" in row else f"{'-':>9}"
        lines.append(
            f"{row['what']:36} {row['phase']:10} {'TF32' if row['tf32'] else 'FP32':5} "
            f"{f'{ours:9.3f}' if ours else '        -'} {' '.join(cells)} {ratio} {wrong}"
        )
    for name, done in report["sections"].items():
        lines.append(f"{name}: {done['status']} in {done['seconds']:.0f} s; {done['note']}")
    lines += [f"left out: {reason}" for reason in report["left_out"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
