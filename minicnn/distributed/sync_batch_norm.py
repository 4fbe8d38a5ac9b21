"""A batch norm that learns from all shards of all processes, made of operations that every backend has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minicnn import shapes
from minicnn.backends import Array, Backend
from minicnn.distributed.processes import Group
from minicnn.distributed.shards import in_tree
from minicnn.distributed.side_by_side import Draws, OverShards
from minicnn.graph.operations import Gradients, Needs, Operation
from minicnn.layers.batch_norm2d import BatchNorm2d


class Given(NamedTuple):
    """The mean and the variance of each channel of a whole batch, and its number of values a channel."""

    mean: Array
    var: Array
    values: float


class SyncedBatchNorm(OverShards):
    """A batch norm, alone or with what is fused to it, that learns from all shards of all processes.

    Each shard runs it in evaluation, with the mean and the variance of the whole batch in place of the
    running ones.  Its gradient to x then lacks what depends on x through these two.  That is, with xhat the
    normalised x, M values a channel, and dweight and dbias of the whole batch (see
    `minicnn.ops.batch_norm2d`), the forward pass of a batch norm, and is added:

        xhat * (-weight * invstd * dweight / M)  +  (-weight * invstd * dbias / M)

    Torch: nn.SyncBatchNorm, which takes cards only
    """

    def __init__(self, operation: Operation, draws: Draws, group: Group, norm: BatchNorm2d) -> None:
        super().__init__(operation, draws)
        self.group, self.norm = group, norm

    def forward(self, backend: Any, inputs: Sequence[Any], training: bool) -> tuple[Any, Any]:
        norm, channels = self.norm, self.norm.num_features
        own = [moments(x, norm, backend.backend) for x in inputs[0]]
        total = self.group.join(in_tree(own, joined), joined)
        mean, squares, count = total[:channels], total[channels:-1], float(total[-1])
        if count == 1:
            expected = "more than 1 value per channel in training"
            shapes.fail("batch_norm2d", "x", expected, f"shape {tuple(inputs[0][0].shape)}")
        share = norm.count_batch()
        for name, value in (("running_mean", mean), ("running_var", squares / max(count - 1, 1))):
            running = norm.buffers[name]
            running[...] = (1 - share) * running + share * value
        given = Given(
            _as(norm.buffers["running_mean"], mean),
            _as(norm.buffers["running_var"], squares / count),
            count,
        )
        with self._learning_from(given):
            y, kept = super().forward(backend, inputs, training)
        return y, (given, kept)

    def backward(self, backend: Any, dy: Any, saved: Any, needs: Needs) -> Gradients:
        norm, (given, kept) = self.norm, saved
        with self._learning_from(given):
            results: list[Any] = list(super().backward(backend, dy, kept, needs))
            if needs[0]:
                weight, bias = self._rest(backend.backend, given)
                for shard, (x, *_) in enumerate(kept):
                    rest, _, _ = backend.backend.batch_norm2d_forward(
                        x, weight, bias, given.mean, given.var, training=False, momentum=0.0, eps=norm.eps
                    )
                    results[0][shard] = backend.backend.add_forward(results[0][shard], rest)
        if not norm.affine:
            norm.grads = {}
        return tuple(results)

    def _rest(self, backend: Backend, given: Given) -> tuple[Array, Array]:
        """Weight and bias of the forward pass that is the rest of the gradient to x."""
        norm, channels = self.norm, self.norm.num_features
        own = []
        for dw, db in zip(norm.grads["weight"], norm.grads["bias"], strict=True):
            row = _row(backend, 2 * channels)
            row[:channels], row[channels:] = dw, db
            own.append(row)
        total = in_tree(own)
        self.group.add(total)
        scale = norm.params["weight"] / (given.var + norm.eps) ** 0.5 / -given.values
        return _as(given.mean, scale * total[:channels]), _as(given.mean, scale * total[channels:])

    @contextmanager
    def _learning_from(self, given: Given) -> Iterator[None]:
        """Within it, the layer has the statistics of the whole batch, and a weight and a bias."""
        norm, params = self.norm, self.norm.params
        neutral = {"weight": _as(given.var, 1.0), "bias": _as(given.var, 0.0)}
        norm.given, norm.params = (given.mean, given.var), params or neutral
        try:
            yield
        finally:
            norm.given, norm.params = None, params


def moments(x: Array, norm: BatchNorm2d, backend: Backend) -> Array:
    """Each channel's mean over a shard and the sum of its squared distances from it; the number of values.

    They are a row (2C + 1,) in float64; zeros for a shard without images.
    """
    channels, count = norm.num_features, int(x.shape[0] * x.shape[2] * x.shape[3])
    row = _row(backend, 2 * channels + 1)
    if count == 1:
        row[:channels] = x.reshape(-1)
    elif count:
        var = _as(norm.buffers["running_var"], 1.0)
        _, mean, _ = backend.batch_norm2d_forward(
            x, None, None, None, var, training=True, momentum=1.0, eps=norm.eps
        )
        row[:channels], row[channels:-1] = mean, var
        row[channels:-1] *= count - 1
    row[-1] = count
    return row


def joined(a: Array, b: Array) -> Array:
    """The moments of two parts together; the same bits for either order.

    Source: Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm
    """
    channels = len(a) // 2
    both, count = a + b, a[-1:] + b[-1:]
    count = count + (count == 0)
    distance = a[:channels] - b[:channels]
    both[:channels] = (a[-1:] * a[:channels] + b[-1:] * b[:channels]) / count
    both[channels:-1] += distance * distance * (a[-1:] * b[-1:] / count)
    return both


def _row(backend: Backend, length: int) -> Array:
    return backend.asarray(np.zeros(length))


def _as(like: Array, values: Any) -> Array:
    """Values as an array of this shape and dtype."""
    made = like.clone() if hasattr(like, "clone") else like.copy()
    made[...] = values
    return made
