"""Batch-normalisation layer.  Torch: nn.BatchNorm2d."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from minicnn import shapes
from minicnn.backends import Array
from minicnn.layers.layer import Generators, Layer, Shape, refuse_option


class BatchNorm2d(Layer):
    """(N,C,H,W) -> the same shape; weight and bias (C,), or neither if not ``affine``.

    ``momentum`` moves the running statistics towards the batch's; None averages all batches.
    """

    op = "batch_norm2d"
    torch_name = "BatchNorm2d"

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True
    ) -> None:
        super().__init__()
        shapes.flags("BatchNorm2d", affine=affine)
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.given: tuple[Array, Array] | None = None
        """Mean and variance (C,) of the whole batch, where this layer sees a shard of it alone."""

    def initial_params(self, generator: Generators) -> dict[str, np.ndarray]:  # noqa: ARG002 - nothing is drawn
        if not self.affine:
            return {}
        return {"weight": np.ones(self.num_features), "bias": np.zeros(self.num_features)}

    def initial_buffers(self) -> dict[str, np.ndarray]:
        return {
            "running_mean": np.zeros(self.num_features),
            "running_var": np.ones(self.num_features),
            "num_batches_tracked": np.array(0, np.int64),
        }

    def attributes(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "eps": self.eps}

    def backward_options(self) -> dict[str, Any]:
        if self.given is not None:
            return {"training": False}
        return {"training": self.requires_grad}

    def count_batch(self) -> float:
        """Count a batch; the share that it has in the new running statistics."""
        self.buffers["num_batches_tracked"] += 1
        if self.momentum is None:
            return 1.0 / int(self.buffers["num_batches_tracked"])
        return self.momentum

    def arguments(self, training: bool) -> tuple[tuple[Array | None, ...], dict[str, Any]]:
        """What the backend's batch norms take after x; counts the batch in training.

        A frozen batch norm is always in evaluation mode.  So is one whose statistics are given.
        """
        training = training and self.requires_grad and self.given is None
        momentum = self.count_batch() if training else self.momentum or 0.0
        statistics = self.given or (self.buffers["running_mean"], self.buffers["running_var"])
        arrays = (self.params.get("weight"), self.params.get("bias"), *statistics)
        return arrays, {"training": training, "momentum": momentum, "eps": self.eps}

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        backend = self.backend
        arrays, attributes = self.arguments(training)
        y, mean, invstd = backend.batch_norm2d_forward(x, *arrays, **attributes)
        return y, (x, mean, invstd) if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        x, mean, invstd = saved
        dx, dw, db = self.backend.batch_norm2d_backward(
            dy, x, self.params.get("weight"), mean, invstd,
            **self.backward_options(), need_dx=need_dx, **self.need_grads(),
        )  # fmt: skip
        self.set_grads(dw, db)
        return dx

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3 or input_shape[0] != self.num_features:
            shapes.fail("BatchNorm2d", "input_shape", f"(C={self.num_features}, H, W)", input_shape)
        return input_shape

    def torch_arguments(self) -> dict[str, Any]:
        return {
            "num_features": self.num_features, "eps": self.eps, "momentum": self.momentum,
            "affine": self.affine,
        }  # fmt: skip

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        refuse_option(module, "track_running_stats=False", not module.track_running_stats)
        return cls(module.num_features, module.eps, module.momentum, module.affine)

    def __repr__(self) -> str:
        options = "" if self.momentum == 0.1 else f", momentum={self.momentum}"
        options += "" if self.eps == 1e-5 else f", eps={self.eps:g}"
        options += "" if self.affine else ", affine=False"
        return f"BatchNorm2d({self.num_features}{options})"
