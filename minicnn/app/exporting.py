"""The files that a model is exported to: each is made of the model once, and written with its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from minicnn import data
from minicnn.contract import PROBABILITIES, Contract
from minicnn.layers import Sequential

ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
"""The kinds of files, and how their names end."""

_NEEDS = {"onnx": (("onnx", "export"),), "torch": (("torch", "torch"),)}
"""The packages that a kind takes, each with the extra of minicnn that installs it."""

Content = Callable[[dict[str, Any]], bytes]
"""The file's content, with these entries in its metadata."""


def check_packages(kind: str, *, quantize: bool) -> None:
    """Raise ValueError naming a package that is not installed, and how to install it."""
    needed = [*_NEEDS.get(kind, ()), *([("onnxruntime", "export")] if quantize else [])]
    for package, extra in needed:
        if find_spec(package) is None:
            raise ValueError(
                f"[export] {kind}: expected the package {package}, which is not installed: "
                f"pip install 'minicnn[{extra}]'"
            )


def onnx_content(
    model: Sequential, contract: Contract, name: str, *, fold: bool, any_size: bool,
    training: data.Images | None,
) -> Content:  # fmt: skip
    """An ONNX model; of int8 where there are training images to quantise it by."""
    from minicnn.graph.onnx import describe, to_onnx

    proto = to_onnx(model, contract=contract, fold=fold, any_size=any_size, name=name)
    if training is not None:
        from minicnn.app.quantization import quantized

        proto = quantized(proto, training)

    def content(entries: dict[str, Any]) -> bytes:
        describe(proto, **entries)
        return bytes(proto.SerializeToString())

    return content


def torch_content(model: Sequential, contract: Contract) -> Content:
    """A program of torch.export."""
    from minicnn.torch_program import program_bytes, to_program

    program = to_program(model, contract)
    told = {"class_names": contract.class_names, "contract": contract.described()}
    return lambda entries: program_bytes(program, told | entries)


def safetensors_content(model: Sequential, contract: Contract) -> Content:
    """The plain weights under torch's names, which load into the same net in PyTorch."""
    from safetensors.numpy import save

    described = contract.described()
    described["input"]["dtype"] = "float32"  # what goes around the layers is not in the file
    described["normalisation"]["in_the_model"] = False
    del described["outputs"][PROBABILITIES]
    told = {"class_names": contract.class_names, "contract": described}
    state = model.state_dict()

    def content(entries: dict[str, Any]) -> bytes:
        texts = {key: json.dumps(value) for key, value in (told | entries).items()}
        return save(state, {"format": "pt", **texts})

    return content


def versions(kind: str) -> dict[str, str]:
    """The versions of the packages that write a file of this kind."""
    return {package: version(package) for package, _ in _NEEDS.get(kind, ())}
