"""Grad-CAM: where the last feature maps speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
2017.

Let A_k (h,w) be the maps of a layer and s the logit of a class.  A map's weight is its gradient's mean,

    a_k = 1/(h w) Σ_ij ds/dA_k[i,j]

and the picture is what the maps add up to with these weights, where that speaks for the class and not
against it:  max(0, Σ_k a_k A_k).  With a global mean and one dense layer after the maps, a_k is that
layer's weight divided by h w.
"""

from __future__ import annotations

import numpy as np

from minicnn import shapes
from minicnn.inside.trace import Trace, last_maps, maps_named
from minicnn.layers.model import Model


def grad_cam(model: Model, x: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
    """Where in each image the maps of a layer raise the logit of a class.

    Args:    x (N,C,H,W), normalised as in training · classes int (N,), one for each image
             layer the full name of a layer or container that gives maps; None: the last maps before pooling
             or the dense layers
    Returns: (N,h,w), the size of that layer's maps, at least 0, in units of the logit
    Raises:  ValueError if the layer has no maps, or if a class is none of the K
    """
    return maps_of(Trace(model, x), classes, layer)


def maps_of(trace: Trace, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
    """`grad_cam` of a forward pass that was traced."""
    logits, classes = trace.logits, np.asarray(classes)
    if classes.shape != (len(logits),) or not np.isin(classes, np.arange(logits.shape[1])).all():
        expected = f"{len(logits)} class numbers from 0 to {logits.shape[1] - 1}"
        shapes.fail("grad_cam", "classes", expected, classes.tolist())
    wanted = np.zeros_like(logits)
    wanted[np.arange(len(logits)), classes] = 1
    number = chosen_maps(trace, layer)
    maps, gradients = trace.value(number), trace.gradients(wanted).get(number)
    if gradients is None:
        shapes.fail("grad_cam", "layer", "one that the logits depend on", layer)
    weights = gradients.mean(axis=(2, 3), keepdims=True)
    found: np.ndarray = np.maximum((weights * maps).sum(axis=1), 0)
    return found


def chosen_maps(trace: Trace, layer: str | None) -> int:
    """The value whose maps `grad_cam` takes.  Raises ValueError if there is none."""
    if layer is not None:
        return maps_named(trace, layer)
    return last_maps(trace.graph, {n.output: trace.value(n.output).shape[1:] for n in trace.graph})
