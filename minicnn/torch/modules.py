"""Modules for torch.nn programs, each one operation of minicnn.

A module is the torch.nn module whose parameters it has, under the same names: ``ConvReLU`` is an
``nn.Conv2d`` with a ReLU after it, so that a ``state_dict`` of ``nn.Conv2d`` fits.  Tensors are float32 or
float64, on the CPU or on an NVIDIA GPU; under torch.autocast they are cast as torch.nn casts them.
Errors: ValueError ``[op] argument: expected ..., got ...``, as from every operation of minicnn.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from minicnn.torch import calls

Window = nn.MaxPool2d
"""A max-pool: ``nn.MaxPool2d(2)``."""


class Conv2d(nn.Conv2d):
    """nn.Conv2d: (N,C,H,W) -> (N,F,OH,OW)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.padding_mode != "zeros":
            raise ValueError(f"[Conv2d] padding_mode: expected 'zeros', got {self.padding_mode!r}")

    def forward(self, input: Tensor) -> Tensor:
        return calls.convolve("conv2d", input, self)


class ConvReLU(Conv2d):
    """nn.Conv2d, then nn.ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.convolve("conv2d_relu", input, self)


class ConvMaxPool(Conv2d):
    """nn.Conv2d, then the max-pool ``pool``; the other arguments are nn.Conv2d's."""

    def __init__(self, *args: Any, pool: Window | int = 2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool = window(pool)

    def forward(self, input: Tensor) -> Tensor:
        return calls.convolve("conv2d_max_pool2d", input, self, self.pool)


class ConvReLUMaxPool(ConvMaxPool):
    """nn.Conv2d, then nn.ReLU, then the max-pool ``pool``; the other arguments are nn.Conv2d's."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.convolve("conv2d_relu_max_pool2d", input, self, self.pool)


class Linear(nn.Linear):
    """nn.Linear of (N,in_features)."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.dense("dense", input, self)


class LinearReLU(nn.Linear):
    """nn.Linear of (N,in_features), then nn.ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.dense("dense_relu", input, self)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.normalize("batch_norm2d", input, self)


class BatchNormReLU(nn.BatchNorm2d):
    """nn.BatchNorm2d, then nn.ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.normalize("batch_norm2d_relu", input, self)


class BatchNormAddReLU(nn.BatchNorm2d):
    """relu(batch_norm2d(input) + residual): the end of a residual block."""

    def forward(self, input: Tensor, residual: Tensor) -> Tensor:  # type: ignore[override]
        return calls.normalize("batch_norm2d_add_relu", input, self, residual=residual)


class BatchNormReLUMaxPool(nn.BatchNorm2d):
    """nn.BatchNorm2d, then nn.ReLU, then the max-pool ``pool``; other arguments are nn.BatchNorm2d's."""

    def __init__(self, *args: Any, pool: Window | int = 2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool = window(pool)

    def forward(self, input: Tensor) -> Tensor:
        return calls.normalize("batch_norm2d_relu_max_pool2d", input, self, pool=self.pool)


class MaxPool2d(nn.MaxPool2d):
    """nn.MaxPool2d, without ``return_indices``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        window(self)

    def forward(self, input: Tensor) -> Tensor:
        return calls.max_pool(input, self)


class AvgPool2d(nn.AvgPool2d):
    """nn.AvgPool2d, without ``divisor_override``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.divisor_override is not None:
            raise ValueError(f"[AvgPool2d] divisor_override: expected None, got {self.divisor_override}")

    def forward(self, input: Tensor) -> Tensor:
        return calls.avg_pool(input, self)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """nn.AdaptiveAvgPool2d."""

    def forward(self, input: Tensor) -> Tensor:
        return calls.adaptive_avg_pool(input, self)


def window(pool: Window | int) -> nn.MaxPool2d:
    """The max-pool, or one over squares of this side.  Raises ValueError if it returns indices."""
    pool = pool if isinstance(pool, nn.MaxPool2d) else nn.MaxPool2d(pool)
    if pool.return_indices:
        raise ValueError("[max_pool2d] return_indices: expected False, got True")
    return pool
