"""Programs that run exported models: each is made of a file's content and takes images, uint8 (N,C,H,W)."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from minicnn.contract import INPUT, LOGITS, PROBABILITIES

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Images -> (probabilities, logits), each (N,K)."""


class Engine(NamedTuple):
    """A program that runs a file, its version, and its name with what was asked of it."""

    name: str
    version: str
    run: Run


def load_engines(kind: str, content: bytes, threads: int | None) -> list[Engine]:
    """The engines that are installed for a file of this kind, onnx or torch.

    Raises: ValueError if there is none, or one that does not take the file
    """
    if kind == "torch":
        return [_refusing("torch", _torch, content, threads)]
    if find_spec("onnxruntime") is None:
        raise ValueError(
            "[export] verify: expected the package onnxruntime, which is not installed: "
            "pip install 'minicnn[export]'"
        )
    engines = [_refusing("onnxruntime", _onnxruntime, content, threads)]
    if find_spec("openvino") is not None:
        engines.append(_refusing("openvino", _openvino, content, threads))
    return engines


def _refusing(
    name: str, load: Callable[[bytes, int | None], Engine], content: bytes, threads: int | None
) -> Engine:
    """The engine; whatever goes wrong in it is one clear error."""

    def refused(error: Exception) -> ValueError:
        first = str(error).strip().partition("\n")[0]
        return ValueError(f"[export] verify: {name} does not run the model: {first}")

    try:
        engine = load(content, threads)
    except Exception as error:
        raise refused(error) from error

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            return engine.run(images)
        except Exception as error:
            raise refused(error) from error

    return engine._replace(run=run)


def _onnxruntime(content: bytes, threads: int | None) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, logits = session.run([PROBABILITIES, LOGITS], {INPUT: images})
        return probabilities, logits

    return Engine("onnxruntime", onnxruntime.__version__, run)


def _openvino(content: bytes, threads: int | None) -> Engine:
    import openvino

    core = openvino.Core()
    # By default it computes in bfloat16 where the processor has it.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(content), "CPU", options)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled([images])
        return np.array(found[PROBABILITIES]), np.array(found[LOGITS])

    return Engine("openvino", str(openvino.__version__).partition("-")[0], run)


def _torch(content: bytes, threads: int | None) -> Engine:  # noqa: ARG001 - torch's are set for all of it
    import torch

    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(images))
        return found[PROBABILITIES].numpy(), found[LOGITS].numpy()

    return Engine("torch", torch.__version__.partition("+")[0], run)
