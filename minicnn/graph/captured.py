"""A graph on a GPU, captured once for each shape of images and replayed: one launch, not hundreds."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends import Array, Backend
from minicnn.backends.cuda_backend import CudaBackend
from minicnn.backends.device import Device, DeviceGraph
from minicnn.graph import run
from minicnn.graph.graph import Graph
from minicnn.graph.operations import Shape

MOST_SHAPES = 8
"""So many shapes of images have a graph each; then the one that was captured first gives way."""


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
        self._of_shape: dict[Shape, _Captured] = {}
        self._lock = threading.Lock()

    @staticmethod
    def suits(graph: Graph, backend: Backend) -> bool:
        """Whether the backend is cuda, and no layer of the user's own may compute on the host."""
        layers = (layer for node in graph for layer in node.operation.layers)
        own = (type(layer).__module__.partition(".")[0] != "minicnn" for layer in layers)
        return isinstance(backend, CudaBackend) and not any(own)

    def run(self, x: np.ndarray) -> np.ndarray:
        """The outputs of images (N,C,H,W) or rows (N,features), N at least 1."""
        with self._lock:
            found = self._of_shape.get(x.shape)
            if found is None:
                found = self._capture(x)
                if len(self._of_shape) >= MOST_SHAPES:
                    del self._of_shape[next(iter(self._of_shape))]
                self._of_shape[x.shape] = found
            self._device.refill(found.x, x)
            found.replays.replay()
            return self._backend.to_numpy(found.y).copy()

    def _capture(self, x: np.ndarray) -> _Captured:
        images: Any = self._device.empty(x.shape, self._dtype)
        self._device.refill(images, x)
        self._forward(images)  # what is made at the first call, such as memory, is not part of the graph
        results: list[Array] = []
        replays = self._device.capture(lambda: results.append(self._forward(images)))
        return _Captured(images, results[0], replays)

    def _forward(self, images: Array) -> Array:
        return run.forward(self._graph, self._backend, images, training=False)[0]
