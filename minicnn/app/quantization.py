"""int8 models: ONNX Runtime's static quantisation, by what the model makes of training images."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minicnn import data
from minicnn.contract import INPUT
from minicnn.graph.onnx import AROUND

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGES = 512
"""So many training images say how large activations are."""

_TOGETHER = 32


class _Batches:
    """The images as ONNX Runtime asks for them: a batch at a time, then None."""

    def __init__(self, images: data.Images) -> None:
        self._batches: Iterator[np.ndarray] = images.pieces(_TOGETHER)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, by the input's name."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: np.ascontiguousarray(batch)}


def quantized(proto: ModelProto, images: data.Images) -> ModelProto:
    """The model with int8 weights, a scale for each filter, and uint8 activations.

    The ranges of activations are those of these images.  What lies around the layers stays float32, and so
    does what dense layers give.  The metadata stays.
    """
    import onnx
    from onnxruntime import quantization

    around = [node.name for node in proto.graph.node if node.name.startswith(AROUND)]
    with tempfile.TemporaryDirectory() as folder, _no_advice():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            deepcopy(proto), str(path), _Batches(images), quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            per_channel=True, nodes_to_exclude=around,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},  # 256 logits would be too few
        )  # fmt: skip
        found = onnx.load(str(path))
    found.producer_name, found.producer_version = proto.producer_name, proto.producer_version
    del found.metadata_props[:]
    found.metadata_props.extend(proto.metadata_props)
    onnx.checker.check_model(found, full_check=True)
    return found


@contextmanager
def _no_advice() -> Iterator[None]:
    """Leave out the quantiser's advice to prepare the model, which the fold of batch norms has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
