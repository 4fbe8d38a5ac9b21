"""minicnn inside PyTorch: operations, modules, and `accelerate` for models that exist.

``torch.ops.minicnn.*`` are the operations of the contract (`minicnn.torch.operations`), with gradients.
Importing this package imports torch.
"""

from minicnn.torch.accelerate import accelerate, report, restore
from minicnn.torch.modules import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    BatchNormAddReLU,
    BatchNormReLU,
    BatchNormReLUMaxPool,
    Conv2d,
    ConvMaxPool,
    ConvReLU,
    ConvReLUMaxPool,
    Linear,
    LinearReLU,
    MaxPool2d,
)
from minicnn.torch.register import call
from minicnn.torch.report import Report, Row

__all__ = [
    "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "BatchNormAddReLU", "BatchNormReLU",
    "BatchNormReLUMaxPool", "Conv2d", "ConvMaxPool", "ConvReLU", "ConvReLUMaxPool", "Linear", "LinearReLU",
    "MaxPool2d", "Report", "Row", "accelerate", "call", "report", "restore",
]  # fmt: skip
