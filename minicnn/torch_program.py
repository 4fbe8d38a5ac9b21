"""A model as a program of torch.export: what a .pt2 file holds.  Importing this module imports torch."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minicnn.contract import LOGITS, PROBABILITIES, Contract
from minicnn.layers.model import Model
from minicnn.torch_reference import to_torch

METADATA = "metadata.json"
"""The name under which a .pt2 file has class names, contract and verification."""


class Predictor(nn.Module):
    """From bytes to probabilities: a model's twin in torch, with all that its contract says around it."""

    def __init__(self, model: Model, contract: Contract) -> None:
        super().__init__()
        self.model = to_torch(model)
        mean, std = np.array(contract.mean, np.float64), np.array(contract.std, np.float64)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.from_numpy(1 / (255 * std)).float()[:, None, None])
        self.register_buffer("shift", torch.from_numpy(-mean / std).float()[:, None, None])
        self.temperature = 1.0 if contract.temperature is None else contract.temperature

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Probabilities and logits (N,K) of images (N,C,H,W) uint8."""
        logits = self.model(images.float() * self.scale + self.shift)
        return {PROBABILITIES: (logits / self.temperature).softmax(1), LOGITS: logits}


def to_program(model: Model, contract: Contract) -> torch.export.ExportedProgram:
    """The program that predicts any number of images (N,C,H,W) uint8, in evaluation and float32.

    Raises: ValueError naming a layer that torch does not have
    """
    example = torch.zeros(2, *contract.image_shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch")
    predictor = Predictor(model, contract).eval().float()
    with torch.no_grad():
        return torch.export.export(predictor, (example,), dynamic_shapes=({0: batch},), strict=False)


def program_bytes(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> bytes:
    """The content of a .pt2 file, with this metadata as JSON."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
    return file.getvalue()
