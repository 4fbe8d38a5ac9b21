"""A graph on a GPU, captured once for each shape of images that comes again: one launch, not hundreds."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends import Array, Backend
from minicnn.backends.cuda_backend import CudaBackend
from minicnn.backends.device import ONE_AT_A_TIME, Device, DeviceGraph
from minicnn.graph import run
from minicnn.graph.graph import Graph
from minicnn.graph.operations import Shape
from minicnn.layers.layer import is_users_own

MOST_SHAPES = 8
"""So many shapes are remembered, with a graph each if they came again; then the first one gives way."""


class _Captured(NamedTuple):
    x: Array
    y: Array
    replays: DeviceGraph


class CapturedGraph:
    """Runs a graph on cuda, with its weights where they are now.  Calls of several threads take turns."""

    def __init__(self, graph: Graph, backend: Backend, dtype: str) -> None:
        assert isinstance(backend, CudaBackend)
        self._graph, self._backend, self._dtype = graph, backend, dtype
        self._device = Device(backend)
        self._of_shape: dict[Shape, _Captured | None] = {}  # None where there is no graph yet
        self._captures = True  # until it fails

    @staticmethod
    def suits(graph: Graph, backend: Backend) -> bool:
        """Whether the backend is cuda, and no layer of the user's own may compute on the host."""
        layers = (layer for node in graph for layer in node.operation.layers)
        return isinstance(backend, CudaBackend) and not any(map(is_users_own, layers))

    def run(self, x: np.ndarray) -> np.ndarray:
        """The outputs of images (N,C,H,W) or rows (N,features), N at least 1."""
        with ONE_AT_A_TIME:
            found = self._graph_of(x)
            if found is None:
                return self._backend.to_numpy(self._forward(self._images(x)))
            self._device.refill(found.x, x)
            found.replays.replay()
            return self._backend.to_numpy(found.y).copy()  # an emulated device gives its own memory

    def _graph_of(self, x: np.ndarray) -> _Captured | None:
        """The graph of images of this shape from the second call with it on, or None.

        The first call makes what is no part of a graph, such as memory, and shapes may never come again.
        """
        if x.shape not in self._of_shape:
            if len(self._of_shape) >= MOST_SHAPES:
                del self._of_shape[next(iter(self._of_shape))]
            self._of_shape[x.shape] = None
            return None
        if self._of_shape[x.shape] is None and self._captures:
            try:
                self._of_shape[x.shape] = self._capture(x)
            except (RuntimeError, MemoryError) as error:
                self._captures = False
                told = f"[cuda] predictions run without capture: {error}"
                warnings.warn(told, RuntimeWarning, stacklevel=4)
        return self._of_shape[x.shape]

    def _capture(self, x: np.ndarray) -> _Captured:
        images, results = self._images(x), list[Array]()
        replays = self._device.capture(lambda: results.append(self._forward(images)))
        return _Captured(images, results[0], replays)

    def _images(self, x: np.ndarray) -> Array:
        images: Any = self._device.empty(x.shape, self._dtype)
        self._device.refill(images, x)
        return images

    def _forward(self, images: Array) -> Array:
        return run.forward(self._graph, self._backend, images, training=False)[0]
