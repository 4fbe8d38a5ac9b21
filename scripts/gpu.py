"""One command for a machine with an NVIDIA GPU: build, test, time, write down.

Builds the cuda module, runs the suite on the card in float32 and float64, compute-sanitizer where it is
installed, then times operations, whole training steps and inference against torch (cuDNN, channels-last,
torch.compile, TF32 off and on) with CUDA events.  Needs no network.  Writes gpu.json and gpu.txt, which
name the device.

    python scripts/gpu.py [--out DIR] [--skip-tests] [--minutes 8]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
WARM_UP, ROUNDS = 5, 20

CONVOLUTIONS = {  # N, C, H, F, kernel, stride
    "first layer 3x3": (256, 3, 32, 64, 3, 1),
    "lenet5 conv2 5x5": (256, 6, 14, 16, 5, 1),
    "64 to 64 3x3": (128, 64, 32, 64, 3, 1),
    "128 to 128 3x3": (128, 128, 16, 128, 3, 1),
    "256 to 256 3x3": (128, 256, 8, 256, 3, 1),
    "64 to 128 3x3 stride 2": (128, 64, 32, 128, 3, 2),
    "256 to 64 1x1": (128, 256, 16, 64, 1, 1),
}
MODELS = {"lenet5": (1, 28, 256), "simple_cnn": (1, 28, 256)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--skip-tests", action="store_true", help="build and time only")
    parser.add_argument("--minutes", type=float, default=8, help="start no further timing after so many")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)

    from minicnn.backends import get_backend

    start = time.monotonic()
    get_backend("cuda")  # builds the module; raises BackendUnavailable with the reason
    report: dict[str, Any] = {**machine(), "build_seconds": round(time.monotonic() - start, 1)}
    if not args.skip_tests:
        report["tests"] = run_tests()
        report["compute_sanitizer"] = run_compute_sanitizer()
    report["rows"] = [row for bench in (convolutions, steps) for row in bench(deadline)]
    (args.out / "gpu.json").write_text(json.dumps(report, indent=1))
    (args.out / "gpu.txt").write_text(table(report))
    print(table(report))
    if any(done["status"] for done in report.get("tests", [])):
        raise SystemExit("tests failed")


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import torch

    return {
        "device": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(),
        "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        "python": sys.version.split()[0],
    }  # fmt: skip


def run_tests() -> list[dict[str, Any]]:
    """The suite on the card; every test of an operation runs in float32 and in float64."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "tests", "--ignore=tests/test_packaging.py",
               "--ignore=tests/test_cuda_sanitizers.py", "-k", "cuda"]  # fmt: skip
    return [run(command, MINICNN_TEST_BACKENDS="cuda")]


def run_compute_sanitizer() -> list[dict[str, Any]] | str:
    """Some tests under compute-sanitizer: memory, races in shared memory, barriers."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    return [
        run([tool, "--tool", which, "--error-exitcode", "1", sys.executable, "-m", "pytest", "-q", "-x",
             "tests/test_ops.py", "-k", "cuda and float32 and (conv2d or flatten or batch_norm)"],
            MINICNN_TEST_BACKENDS="cuda")
        for which in ("memcheck", "racecheck", "synccheck")
    ]  # fmt: skip


def run(command: list[str], **environment: str) -> dict[str, Any]:
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
    return {
        "command": " ".join(command[1:]), "status": done.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "last_line": (done.stdout.strip().splitlines() or [""])[-1],
    }  # fmt: skip


# ---- timing ----------------------------------------------------------------------------------------


def milliseconds(work: Callable[[], Any]) -> float:
    """The median of ROUNDS runs by CUDA events, each after the second-level cache was overwritten."""
    import torch

    flush = torch.empty(256 * 1024 * 1024 // 4, device="cuda")
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(ROUNDS):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def set_tf32(on: bool) -> None:
    """For both sides."""
    import torch

    from minicnn.backends.cuda_backend import allow_tf32

    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on
    allow_tf32(on)


def convolutions(deadline: float) -> list[dict[str, Any]]:
    """Forward and backward of single convolutions; torch is cuDNN on channels-last arrays."""
    import torch

    torch.backends.cudnn.benchmark = True
    rows = []
    for name, shape in CONVOLUTIONS.items():
        for tf32 in (False, True):
            if time.monotonic() > deadline:
                return rows
            set_tf32(tf32)
            rows += [{"what": name, "tf32": tf32, **row} for row in convolution(*shape)]
    set_tf32(False)
    return rows


def convolution(n: int, c: int, size: int, f: int, kernel: int, stride: int) -> list[dict[str, Any]]:
    """Both directions of one convolution, and how far its output is from cuDNN's."""
    import torch

    from minicnn.backends import get_backend

    backend = get_backend("cuda")
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.standard_normal((n, c, size, size)).astype("float32"))
    weight = backend.asarray(rng.standard_normal((f, c, kernel, kernel)).astype("float32"))
    bias = backend.asarray(np.zeros(f, "float32"))
    pairs = ((stride, stride), (kernel // 2, kernel // 2), (1, 1))
    forward = partial(
        backend.conv2d_forward, x, weight, bias,
        stride=pairs[0], padding=pairs[1], dilation=pairs[2], groups=1,
    )  # fmt: skip
    torch_forward = partial(torch.nn.functional.conv2d, x, weight, bias, *pairs)
    y, expected = forward(), torch_forward()
    backward = partial(
        backend.conv2d_backward, y, x, weight,
        stride=pairs[0], padding=pairs[1], dilation=pairs[2], groups=1,
    )  # fmt: skip
    torch_backward = partial(
        torch.ops.aten.convolution_backward,
        y,
        x,
        weight,
        [f],
        *map(list, pairs),
        False,
        [0, 0],
        1,
        [True] * 3,
    )
    error = float((y - expected).abs().max() / expected.abs().max())
    return [
        {"phase": phase, "minicnn_ms": milliseconds(ours), "torch_ms": milliseconds(torchs), "error": error}
        for phase, ours, torchs in (
            ("forward", forward, torch_forward), ("backward", backward, torch_backward)
        )
    ]  # fmt: skip


def steps(deadline: float) -> list[dict[str, Any]]:
    """Whole training steps and inference; torch eager on channels-last arrays, and compiled."""
    import torch

    from minicnn import Trainer, models, optim
    from minicnn.torch_reference import to_torch

    rows = []
    for name, (channels, size, batch) in MODELS.items():
        model = models.create(name, in_channels=channels, num_classes=10, image_size=size, backend="cuda")
        trainer = Trainer(model, optim.SGD(lr=0.01, momentum=0.9))
        rng = np.random.default_rng(0)
        x = model.backend.asarray(rng.standard_normal((batch, channels, size, size)).astype("float32"))
        y = model.backend.asarray(rng.integers(0, 10, batch))
        peers: dict[str, Any] = {"eager": to_torch(model).cuda().to(memory_format=torch.channels_last)}
        peers["compiled"] = torch.compile(peers["eager"])
        for tf32 in (False, True):
            set_tf32(tf32)
            ours = {
                "step": milliseconds(partial(trainer.step, x, y)),
                "inference": milliseconds(partial(model.forward, x, False)),
            }
            for peer, module in peers.items():
                if time.monotonic() > deadline:
                    return rows
                theirs = {"step": torch_step(module, x, y), "inference": torch_inference(module, x)}
                rows += [
                    {"what": f"{name} against {peer}", "phase": phase, "tf32": tf32,
                     "minicnn_ms": ours[phase], "torch_ms": theirs[phase]}
                    for phase in ours
                ]  # fmt: skip
    set_tf32(False)
    return rows


def torch_step(module: Any, x: Any, y: Any) -> float:
    """A training step that, as ours, returns its loss to the host."""
    import torch

    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, fused=True)
    module.train()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return milliseconds(step)


def torch_inference(module: Any, x: Any) -> float:
    """A forward pass in evaluation mode."""
    import torch

    module.eval()
    with torch.inference_mode():
        return milliseconds(lambda: module(x))


def table(report: dict[str, Any]) -> str:
    """The rows as text."""
    lines = [f"{report['device']}, torch {report['torch']}, CUDA {report['cuda']}"]
    for row in report["rows"]:
        ratio = row["torch_ms"] / row["minicnn_ms"]
        mode = "TF32" if row["tf32"] else "FP32"
        lines.append(
            f"{row['what']:26} {row['phase']:10} {mode}  minicnn {row['minicnn_ms']:8.3f} ms"
            f"  torch {row['torch_ms']:8.3f} ms  torch/minicnn {ratio:5.2f}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
