"""Whole training steps and inference of the cpp backend against PyTorch, in turn in one process.

    python benchmarks/cpp_steps.py [--nets NAME ...] [--threads 2] [--seconds 4] [--no-compile]

PyTorch runs eager, channels-last and through torch.compile; the ratio is the best of them to minicnn.
ONNX Runtime and OpenVINO join the inference where they are installed.  Results are checked to agree
before anything is timed.  Writes benchmarks/results/cpp_steps.json.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import NETS, batch, build, torch_step
from paired import machine, save, time_in_turn

import minicnn
from minicnn import Sequential, Trainer, optim
from minicnn.fusion import fuse
from minicnn.torch_reference import to_torch

Call = Callable[[], Any]
LR, MOMENTUM = 0.01, 0.9


def torch_modules(model: Sequential, compiled: bool) -> dict[str, torch.nn.Module]:
    """The ways of running the same net in PyTorch, each with its own copy of the weights."""
    modules = {
        "torch eager": to_torch(model),
        "torch channels-last": to_torch(model).to(memory_format=torch.channels_last),
    }
    if compiled:
        modules["torch.compile"] = torch.compile(to_torch(model))
    return modules


def like(x: np.ndarray, name: str) -> torch.Tensor:
    last = name == "torch channels-last"
    return torch.from_numpy(x).contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )


def training_sides(name: str, n: int, compiled: bool) -> dict[str, Call]:
    x, y = batch(name, n)
    model = build(name, "cpp")
    modules = torch_modules(model, compiled)
    trainer = Trainer(model, optim.SGD(LR, MOMENTUM))

    sides: dict[str, Call] = {"minicnn": lambda: trainer.step(x, y)}
    for peer, module in modules.items():
        sides[peer] = torch_step(module, like(x, peer), torch.from_numpy(y), LR, MOMENTUM)
    for tolerance in (1e-4, 1e-2, 1e-2):  # rounding grows with the steps, in nets with batch norm above all
        losses = [step() for step in sides.values()]
        np.testing.assert_allclose(losses, losses[0], rtol=tolerance)
    return sides


def inference_sides(
    name: str, n: int, compiled: bool, threads: int
) -> tuple[dict[str, Call], dict[str, str]]:
    x, _ = batch(name, n)
    model = build(name, "cpp")
    fuse(model)
    sides: dict[str, Call] = {"minicnn": lambda: model.predict(x)}
    for peer, module in torch_modules(model, compiled).items():
        module.eval()
        sides[peer] = torch_inference(module, like(x, peer))
    runtimes, skipped = runtime_sides(to_torch(model).eval(), x, threads)
    sides |= runtimes
    expected = model.predict(x)
    for side in sides.values():
        np.testing.assert_allclose(side(), expected, rtol=1e-3, atol=1e-4)
    return sides, skipped


def torch_inference(module: torch.nn.Module, x: torch.Tensor) -> Call:
    return lambda: module(x).numpy()


def runtime_sides(
    module: torch.nn.Module, x: np.ndarray, threads: int
) -> tuple[dict[str, Call], dict[str, str]]:
    """ONNX Runtime and OpenVINO on the same net, or why not."""
    sides: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(export(module, x), options)
        sides["ONNX Runtime"] = lambda: session.run(None, {"x": x})[0]
    except ImportError as error:
        skipped["ONNX Runtime"] = str(error)
    try:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(export(module, x)), "CPU", settings)
        sides["OpenVINO"] = lambda: compiled(x)[0]
    except ImportError as error:
        skipped["OpenVINO"] = str(error)
    return sides, skipped


def export(module: torch.nn.Module, x: np.ndarray) -> bytes:
    """The net as ONNX."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        torch.onnx.export(module, (torch.from_numpy(x),), path, input_names=["x"], dynamo=False)
        return path.read_bytes()


def compare(sides: dict[str, Call], seconds: float) -> dict[str, Any]:
    times = time_in_turn(sides, seconds=seconds)
    ours = times["minicnn"]
    peers = {name: t for name, t in times.items() if name.startswith("torch")}
    best = min(peers, key=peers.__getitem__)
    return {
        "milliseconds": {name: round(t, 3) for name, t in times.items()},
        "best torch": best,
        "best torch / minicnn": round(peers[best] / ours, 2),
        "others / minicnn": {
            n: round(t / ours, 2) for n, t in times.items() if n != "minicnn" and n not in peers
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="measuring time of each side")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", default="cpp_steps", help="name of the result file")
    args = parser.parse_args()
    minicnn.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"machine": machine(args.threads), "training": {}, "inference": {}}
    for name in args.nets:
        n = NETS[name].batches[0]
        training = compare(training_sides(name, n, not args.no_compile), args.seconds)
        result["training"][f"{name}, batch {n}"] = training
        print("training", name, n, training, flush=True)
        for n in NETS[name].batches:
            with torch.no_grad():
                sides, skipped = inference_sides(name, n, not args.no_compile, args.threads)
                inference = compare(sides, args.seconds) | ({"skipped": skipped} if skipped else {})
            result["inference"][f"{name}, batch {n}"] = inference
            print("inference", name, n, inference, flush=True)
    save(args.out, result)


if __name__ == "__main__":
    main()
