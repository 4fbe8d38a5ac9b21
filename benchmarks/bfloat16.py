"""Whole training steps and inference in bfloat16: minicnn against PyTorch under autocast, and OpenVINO.

    python benchmarks/bfloat16.py [--nets NAME ...] [--phases training inference] [--threads 2]
        [--seconds 2] [--no-compile] [--check]

Every row's name ends with the precision that it computes in.  PyTorch's rows are channels-last, since its
bfloat16 kernels are fast there, and one is compiled.  OpenVINO takes bfloat16 by itself where the processor
multiplies it; its row has the precision that it says it took.  minicnn and PyTorch in float32 are there to
compare with.  Before anything is timed, the results are checked to agree within bfloat16's rounding.
benchmarks/results/bfloat16.json keeps an entry for each net and phase.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nets import NETS, batch, build
from paired import load, save
from peers import Peer
from results import count
from rows import MOMENTUM, export, inference, measured, training_step, use_threads

from minicnn import Trainer, optim
from minicnn.torch_reference import to_torch

OURS, OURS_FLOAT32 = "minicnn bfloat16", "minicnn float32"
TORCH_FLOAT32 = "torch channels-last, float32"
PEERS = {
    "torch channels-last, bfloat16": Peer(torch.channels_last),
    "torch.compile, bfloat16": Peer(torch.channels_last, compiled=True),
}
IN_FLOAT32 = {OURS_FLOAT32: "minicnn cpp", TORCH_FLOAT32: "torch channels-last"}
"""The rows in float32, and their names in `rows`."""
OPENVINO = "OpenVINO"
TRAINING = (OURS, OURS_FLOAT32, *PEERS, TORCH_FLOAT32)
INFERENCE = (*TRAINING, OPENVINO)
STEPS_CHECKED = 5


def bfloat16_step(row: str, name: str, n: int) -> Callable[[], float]:
    """A call that makes one step of SGD on a batch of n images, and returns the loss before the step."""
    if row in IN_FLOAT32:
        return training_step(IN_FLOAT32[row], name, n)
    x, y = batch(name, n)
    lr = NETS[name].lr
    if row == OURS:
        trainer = Trainer(build(name, "cpp", precision="bfloat16"), optim.SGD(lr, MOMENTUM))
        return lambda: trainer.step(x, y)
    peer = PEERS[row]
    module = to_torch(build(name, "numpy")).to(memory_format=peer.order)
    forward = peer.wrap(autocast(module))
    images, labels = peer.images(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(module.parameters(), lr, MOMENTUM)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(images).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def bfloat16_inference(row: str, name: str, n: int) -> Callable[[], np.ndarray]:
    """A call that returns the logits of a batch of n images, as float32."""
    if row in IN_FLOAT32:
        return inference(IN_FLOAT32[row], name, n)
    x, _ = batch(name, n)
    if row == OURS:
        ours = build(name, "cpp", precision="bfloat16")
        return lambda: ours.predict(x)
    model = build(name, "numpy")
    if row == OPENVINO:
        compiled = openvino_default(export(model, x))
        return lambda: compiled(x)[0]
    peer = PEERS[row]
    module, images = to_torch(model).eval().to(memory_format=peer.order), peer.images(x)
    forward = peer.wrap(autocast(module))

    @torch.no_grad()
    def run() -> np.ndarray:
        return forward(images).float().numpy()

    return run


def autocast(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The module as PyTorch's mixed precision runs it."""

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return module(images)

    return forward


def openvino_default(onnx: bytes) -> Any:
    """The net as OpenVINO compiles it when it is not told a precision."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return core.compile_model(core.read_model(onnx), "CPU", settings)


def openvino_precision(name: str, n: int) -> str:
    """The precision that OpenVINO takes by itself on this processor."""
    compiled = openvino_default(export(build(name, "numpy"), batch(name, n)[0]))
    return {"bf16": "bfloat16", "f32": "float32"}.get(
        compiled.get_property("INFERENCE_PRECISION_HINT").to_string(), "unknown"
    )


def check_losses(steps: dict[str, Callable[[], float]]) -> None:
    """Raise AssertionError unless the losses of some steps agree within bfloat16's rounding."""
    losses = {row: np.array([step() for _ in range(STEPS_CHECKED)]) for row, step in steps.items()}
    expected = losses[OURS_FLOAT32]
    for row, got in losses.items():
        np.testing.assert_allclose(got, expected, rtol=0.02, err_msg=f"losses of {row}")


def check_logits(calls: dict[str, Callable[[], np.ndarray]]) -> None:
    """Raise AssertionError unless the logits agree within bfloat16's rounding."""
    expected = calls[OURS_FLOAT32]()
    for row, call in calls.items():
        error = np.linalg.norm(call() - expected) / np.linalg.norm(expected)
        assert error < 0.03, f"logits of {row} differ from float32's by {error:.3f} of their length"


PHASES = {
    "training": (bfloat16_step, TRAINING, check_losses),
    "inference": (bfloat16_inference, INFERENCE, check_logits),
}


def measure(phase: str, name: str, n: int, args: argparse.Namespace) -> dict[str, Any]:
    """The result's entry: milliseconds of each row, or none with --check."""
    make, rows, check = PHASES[phase]
    chosen = tuple(row for row in rows if not (args.no_compile and row.startswith("torch.compile")))
    entry = measured(make, chosen, check, {"net": name, "batch": n, "phase": phase}, args)
    times = entry["milliseconds"]
    if OPENVINO in times:
        times[f"{OPENVINO}, {openvino_precision(name, n)}"] = times.pop(OPENVINO)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=[*PHASES])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time of each row")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--check", action="store_true", help="check that all agree, and measure nothing")
    args = parser.parse_args()
    use_threads(args.threads)
    for phase in args.phases:
        for name in args.nets:
            n = NETS[name].batches[0]
            entry = measure(phase, name, n, args)
            key = f"{name}, batch {n}, {phase}, {count(args.threads)}"
            print(key, entry["milliseconds"], entry["skipped"] or "", flush=True)
            if not args.check:
                save("bfloat16", load("bfloat16") | {key: entry})


if __name__ == "__main__":
    main()
