"""Nearest images in feature space: which images look alike to the network.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
section 6.1: two images are alike if the vectors that go into the last layer are near to each other, in
Euclid's distance.  In pixels the nearest images are those of like brightness at like places; these vectors
are what the network tells its classes apart by.
"""

from __future__ import annotations

import numpy as np

from minicnn import data, shapes
from minicnn.data.progress import OnProgress, ignore
from minicnn.graph import Graph, build, fuse, run
from minicnn.layers.model import Model


def features(
    model: Model, images: data.Images, mean: np.ndarray, std: np.ndarray, *, batch_size: int = 256,
    progress: OnProgress = ignore,
) -> np.ndarray:  # fmt: skip
    """What goes into the last layer with weights, for each of N images: (N,D), in float32 (or float64).

    Args:   mean, std (C,) by which images were normalised in training
            progress is called before each part, and may raise
    Raises: ValueError if the model has no weights
    """
    graph, backend, parts, done = _up_to_features(build(model)), model.bound(), [], 0
    for pixels in images.pieces():
        progress(done, len(images))
        for start in range(0, len(pixels), batch_size):
            x = data.normalize(pixels[start : start + batch_size], mean, std, model.dtype)
            y = run.predict(graph, backend, x, batch_size=batch_size, dtype=model.dtype)
            parts.append(y.reshape(len(x), -1))
        done += len(pixels)
    return np.concatenate(parts)


def nearest(known: np.ndarray, one: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The ``count`` rows of ``known`` (N,D) that are nearest to ``one`` (D,), as (row, distance).

    The nearest comes first, and of equally near ones the first row.

    scikit-learn: ``NearestNeighbors(n_neighbors=count).fit(known).kneighbors(one[None])``
    """
    if known.ndim != 2 or one.shape != known.shape[1:]:
        shapes.fail("nearest", "one", f"a vector of {known.shape[1:]}", one.shape)
    distances = np.linalg.norm(known.astype(np.float64) - one, axis=1)
    order = np.argsort(distances, kind="stable")[:count]
    return [(int(row), float(distances[row])) for row in order]


def _up_to_features(graph: Graph) -> Graph:
    """The part of a graph that gives the input of its last layer with weights."""
    weighted = [place for place, node in enumerate(graph) if node.owner is not None and node.owner.params]
    if not weighted:
        raise ValueError("[features] model: expected a layer with weights, got none")
    last = graph.nodes[weighted[-1]]
    return fuse(Graph(graph.nodes[: weighted[-1]], last.inputs[0]))
