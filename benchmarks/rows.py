"""Whole training steps and inference of every net: a row for each backend of minicnn and each peer.

A row's name says who computes: for example ``minicnn cpp``, a name of `peers.PEERS`, ``JAX`` (training
only), ``ONNX Runtime`` or ``OpenVINO`` (inference only).  A peer that is not installed raises ImportError.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import NETS, batch, build, torch_step
from paired import machine, time_in_turn
from peers import PEERS

import minicnn
from minicnn import Sequential, Trainer, optim
from minicnn.torch_reference import to_torch

Call = Callable[[], Any]
MOMENTUM = 0.9
ENGINES = ("ONNX Runtime", "OpenVINO")
TRAINING = ("minicnn cpp", *PEERS, "JAX")
INFERENCE = ("minicnn cpp", *PEERS, *ENGINES)
BACKENDS = [f"minicnn {name}" for name, why in minicnn.available_backends().items() if why is None]
THREADS = 2
"""The number of threads unless another one is given."""


def use_threads(threads: int) -> None:
    """Set the number of threads of every side.  JAX and torch.compile take it only once in a process."""
    minicnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    if "jax" not in sys.modules:
        eigen = "true" if threads > 1 else "false"
        os.environ["XLA_FLAGS"] = (
            f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
        )
        os.environ["NPROC"] = str(threads)
    folder = Path(tempfile.gettempdir()) / f"torchinductor-{os.getuid()}-{threads}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def training_step(row: str, name: str, n: int) -> Callable[[], float]:
    """A call that makes one step of SGD on a batch of n images, and returns the loss before the step."""
    x, y = batch(name, n)
    lr = NETS[name].lr
    if row.startswith("minicnn "):
        trainer = Trainer(build(name, row.removeprefix("minicnn ")), optim.SGD(lr, MOMENTUM))
        return lambda: trainer.step(x, y)
    model = build(name, "numpy")
    if row == "JAX":
        import jax_net

        return jax_net.training_step(model, x, y, lr, MOMENTUM)
    peer = PEERS[row]
    module = peer.wrap(to_torch(model).to(memory_format=peer.order))
    return torch_step(module, peer.images(x), torch.from_numpy(y), lr, MOMENTUM)


def inference(row: str, name: str, n: int) -> Callable[[], np.ndarray]:
    """A call that returns the logits of a batch of n images."""
    x, _ = batch(name, n)
    if row.startswith("minicnn "):
        model = build(name, row.removeprefix("minicnn "))
        return lambda: model.predict(x)
    model = build(name, "numpy")
    return engine_inference(row, model, x) if row in ENGINES else torch_inference(row, model, x)


def torch_inference(row: str, model: Sequential, x: np.ndarray) -> Callable[[], np.ndarray]:
    """A call that returns the logits of images x, computed by this peer of `peers.PEERS`."""
    peer = PEERS[row]
    module, images = peer.wrap(to_torch(model).eval().to(memory_format=peer.order)), peer.images(x)

    @torch.no_grad()
    def run() -> np.ndarray:
        return module(images).numpy()

    return run


def engine_inference(
    row: str, model: Sequential, x: np.ndarray, precision: str = "float32"
) -> Callable[[], np.ndarray]:
    """A call that returns the logits of images x, computed by ONNX Runtime or OpenVINO.

    OpenVINO alone has a ``precision`` besides float32: "bfloat16".
    """
    return engine(row, export(model, x), x, precision)


def engine(
    row: str, exported: bytes, x: np.ndarray, precision: str = "float32"
) -> Callable[[], np.ndarray]:
    """A call of `engine_inference`, of a net that is ONNX already."""
    threads = torch.get_num_threads()
    if row == "ONNX Runtime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(exported, options)
        return lambda: session.run(None, {"x": x})[0]
    import openvino

    core = openvino.Core()
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    compiled = core.compile_model(core.read_model(exported), "CPU", settings)
    return lambda: compiled(x)[0]


def export(model: Sequential, x: np.ndarray) -> bytes:
    """The net as ONNX."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        module = to_torch(model).eval()
        torch.onnx.export(module, (torch.from_numpy(x),), path, input_names=["x"], dynamo=False)
        return path.read_bytes()


def installed_rows(
    make: Callable[[str, str, int], Call], rows: tuple[str, ...], name: str, n: int
) -> tuple[dict[str, Call], dict[str, str]]:
    """The calls of the rows whose library is installed, and why each other row is skipped."""
    calls: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    for row in rows:
        try:
            calls[row] = make(row, name, n)
        except ImportError as error:
            skipped[row] = str(error)
    return calls, skipped


def measured(
    make: Callable[[str, str, int], Call], rows: tuple[str, ...], check: Callable[[dict[str, Call]], None],
    entry: dict[str, Any], args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """The entry with the milliseconds of each row, or with none if ``args.check``; all rows agree."""
    calls, skipped = installed_rows(make, rows, entry["net"], entry["batch"])
    check(calls)
    times = {} if args.check else time_in_turn(calls, seconds=args.seconds)
    return entry | {
        "milliseconds": {row: round(time, 4) for row, time in times.items()}, "skipped": skipped,
        "machine": machine(args.threads),
    }  # fmt: skip


def check_losses(steps: dict[str, Callable[[], float]]) -> None:
    """Raise AssertionError unless all have the same loss at first, and a step changes it alike."""
    before = np.array([step() for step in steps.values()])
    after = np.array([step() for step in steps.values()])
    np.testing.assert_allclose(before, before[0], rtol=1e-5, err_msg=f"losses of {list(steps)}")
    change = after - before
    np.testing.assert_allclose(change, change[0], rtol=0.05, err_msg=f"changes of loss of {list(steps)}")


def check_logits(calls: dict[str, Callable[[], np.ndarray]]) -> None:
    """Raise AssertionError unless all give the same logits as the first."""
    expected = next(iter(calls.values()))()
    for row, call in calls.items():
        np.testing.assert_allclose(call(), expected, rtol=1e-3, atol=1e-4, err_msg=row)
