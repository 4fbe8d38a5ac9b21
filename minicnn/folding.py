"""Evaluation without batch norms: each one right behind a convolution is folded into it.

The fold is made of the weights as they are, for one prediction or one pass over a test set, and belongs
to a copy of the tree; so it cannot outlive the weights, and layers, names and state dict stay.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

from minicnn.backends import Backend
from minicnn.fusion import flat, fuse, fused_names
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.conv2d import Conv2d
from minicnn.layers.layer import Layer
from minicnn.layers.parallel import Parallel
from minicnn.layers.residual import Residual
from minicnn.layers.sequential import Sequential


class Fold(NamedTuple):
    """A convolution, the batch norm right behind it, and the convolution that does both."""

    conv: Conv2d
    norm: BatchNorm2d
    folded: Conv2d

    def compute(self, backend: Backend) -> None:
        """Give ``folded`` its weight and bias."""
        params, (arrays, _) = self.conv.params, self.norm.arguments(training=False)
        weight, bias = backend.fold_batch_norm2d(
            params["weight"], params.get("bias"), *arrays, eps=self.norm.eps
        )
        self.folded.params = {"weight": weight, "bias": bias}


def folded(model: Sequential) -> Sequential:
    """The model as it is run in evaluation: a fused copy, whose batch norms are folded where they can be.

    The copy shares all other arrays with the model.  It is for evaluation, until the model's weights
    change.  A model that is not fused, or has nothing to fold, is returned itself.
    """
    if not model.fused:
        return model
    backend = model.backend
    twin, folds = _twin(model)
    for fold in folds:
        fold.compute(backend)
    return twin if folds else model


def evaluation_names(model: Sequential) -> dict[int, str]:
    """id(layer) -> the operation that runs it in evaluation, for `print(model)`.

    Empty where evaluation folds nothing, and so runs what training runs.
    """
    twin, folds = _twin(model) if model.fused else (model, [])
    if not folds:
        return {}
    names = fused_names(twin)
    for conv, norm, together in folds:
        names[id(conv)] = names[id(norm)] = names.get(id(together), "conv2d")
    return names


def _twin(model: Sequential) -> tuple[Sequential, list[Fold]]:
    """A fused copy of the tree without the batch norms that can be folded, and what is to be folded."""
    folds: list[Fold] = []
    twin = _copy_sequential(model, folds)
    if folds:
        fuse(twin)
    return twin, folds


def _copy(layer: Layer, folds: list[Fold]) -> Layer:
    """A copy of a container with copies below it; any other layer itself."""
    if isinstance(layer, Sequential):
        return _copy_sequential(layer, folds)
    if isinstance(layer, Residual):
        return _copy_residual(layer, folds)
    if isinstance(layer, Parallel):
        twin = copy.copy(layer)
        twin.children = {name: _copy(branch, folds) for name, branch in layer.children.items()}
        twin.unfuse()
        return twin
    return layer


def _copy_residual(residual: Residual, folds: list[Fold]) -> Residual:
    twin = copy.copy(residual)
    twin.body = _copy_sequential(residual.body, folds)
    copies: dict[int, Layer] = {id(residual.body): twin.body}
    if residual.shortcut is not None:
        twin.shortcut = copies[id(residual.shortcut)] = _copy(residual.shortcut, folds)
    twin.children = {name: copies.get(id(child), child) for name, child in residual.children.items()}
    twin.unfuse()
    return twin


def _copy_sequential(sequential: Sequential, folds: list[Fold]) -> Sequential:
    """A copy with folded convolutions, and with what nested Sequentials hold in their places."""
    twin = copy.copy(sequential)
    twin.children = {}
    last_name, last = "", Layer()
    for name, layer in flat(sequential):
        if type(last) is Conv2d and type(layer) is BatchNorm2d:
            together = copy.copy(last)
            together.bias, together.params = True, {}
            folds.append(Fold(last, layer, together))
            twin.children[last_name] = together
        else:
            twin.children[name] = _copy(layer, folds)
        last_name, last = name, layer
    twin.unfuse()
    return twin
