"""Whole training steps and inference of every net, a row each for minicnn's backends and for their peers.

A row's name says who computes: ``minicnn cpp``, a name of `peers.PEERS`, ``JAX`` (training),
``ONNX Runtime`` and ``OpenVINO`` (inference).  A peer that is not installed raises ImportError.
"""

from __future__ import annotations

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
"""What is timed with if nothing else is asked for."""


def use_threads(threads: int) -> None:
    """Have everybody compute with so many threads; JAX and torch.compile fix theirs once a process."""
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
    """One step of SGD on a batch of n images: a call that returns the loss before it."""
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
    """The logits of a batch of n images."""
    x, _ = batch(name, n)
    if row.startswith("minicnn "):
        model = build(name, row.removeprefix("minicnn "))
        return lambda: model.predict(x)
    model = build(name, "numpy")
    return engine_inference(row, model, x) if row in ENGINES else torch_inference(row, model, x)


def torch_inference(row: str, model: Sequential, x: np.ndarray) -> Callable[[], np.ndarray]:
    """The logits of images x as this peer of torch computes them."""
    peer = PEERS[row]
    module, images = peer.wrap(to_torch(model).eval().to(memory_format=peer.order)), peer.images(x)

    @torch.no_grad()
    def run() -> np.ndarray:
        return module(images).numpy()

    return run


def engine_inference(row: str, model: Sequential, x: np.ndarray) -> Callable[[], np.ndarray]:
    """The logits of images x as an engine for inference computes them."""
    threads = torch.get_num_threads()
    if row == "ONNX Runtime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(export(model, x), options)
        return lambda: session.run(None, {"x": x})[0]
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(export(model, x)), "CPU", settings)
    return lambda: compiled(x)[0]


def export(model: Sequential, x: np.ndarray) -> bytes:
    """The net as ONNX."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        module = to_torch(model).eval()
        torch.onnx.export(module, (torch.from_numpy(x),), path, input_names=["x"], dynamo=False)
        return path.read_bytes()


def rows_that_can_be_had(
    make: Callable[[str, str, int], Call], rows: tuple[str, ...], name: str, n: int
) -> tuple[dict[str, Call], dict[str, str]]:
    """The calls of those rows whose library is installed, and why the others are skipped."""
    calls: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    for row in rows:
        try:
            calls[row] = make(row, name, n)
        except ImportError as error:
            skipped[row] = str(error)
    return calls, skipped


def check_losses(steps: dict[str, Callable[[], float]]) -> None:
    """Raise AssertionError unless all start with one loss, and their first step changes it alike."""
    before, after = (np.array([step() for step in steps.values()]) for _ in range(2))
    np.testing.assert_allclose(before, before[0], rtol=1e-5, err_msg=f"losses of {list(steps)}")
    change = after - before
    np.testing.assert_allclose(change, change[0], rtol=0.05, err_msg=f"changes of loss of {list(steps)}")


def check_logits(calls: dict[str, Callable[[], np.ndarray]]) -> None:
    """Raise AssertionError unless all give the first one's logits."""
    expected = next(iter(calls.values()))()
    for row, call in calls.items():
        np.testing.assert_allclose(call(), expected, rtol=1e-3, atol=1e-4, err_msg=row)
