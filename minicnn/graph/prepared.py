"""A graph made ready once, so that a call runs it as a whole: what a session is on the cpp backend."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from minicnn.backends import Backend
from minicnn.backends.waking import waking
from minicnn.graph.graph import Graph
from minicnn.graph.operations import Shape
from minicnn.graph.plans import CompiledGraph, Images

NO_LIMIT = 1 << 30
MOST_PLANS = 8
"""So many batch sizes have a plan each; then the one that was made first gives way."""


class _Key(NamedTuple):
    """What a plan is made for."""

    shape: Shape
    images: Images


class PreparedGraph:
    """Runs a graph on the cpp backend, with the weights as they were when this was made.

    Several threads may call `run` at once.

    Args: batch_size the number of images whose plan is kept longest
          threads how many threads a call may take at most
          measured whether a new plan measures which operations gain from several threads
    """

    def __init__(
        self, graph: Graph, backend: Backend, *, batch_size: int = 1, threads: int = NO_LIMIT,
        measured: bool = True,
    ) -> None:  # fmt: skip
        self._compiled = CompiledGraph(graph, backend)
        self._batch_size, self._threads = batch_size, threads
        self._waking = waking(backend._module) if measured else None  # type: ignore[attr-defined]
        self._plans: dict[_Key, tuple[Any, Shape]] = {}
        self._fitting: set[Shape] = set()
        self._lock = threading.Lock()

    def run(self, x: np.ndarray, table: np.ndarray | None = None) -> np.ndarray:
        """The outputs of float32 images (N,C,H,W) or rows (N,features), N at least 1.

        Images are taken as they lie in memory if that is channels-last.  With a ``table`` (C,256) of what
        each byte of a channel becomes, the same for all calls, they are of uint8.
        """
        images = Images.BYTES if table is not None else Images.of(x)
        plan, output_shape = self._plan(_Key(x.shape, images), table)
        y = np.empty(output_shape, np.float32)
        if images is Images.CHANNELS_LAST:
            x = x.transpose(0, 2, 3, 1)
        plan.run(np.ascontiguousarray(x), y, self._threads)
        return y if y.ndim == 2 else y.transpose(0, 3, 1, 2)

    def takes(self, shape: Shape) -> bool:
        """Whether there are images of this shape (N,C,H,W), or rows, and they fit the graph."""
        if len(shape) not in (2, 4) or shape[0] == 0:
            return False
        if shape[1:] not in self._fitting:
            try:
                self._compiled.output_shape(shape)
            except ValueError:
                return False
            self._fitting.add(shape[1:])
        return True

    def prepare(self, shape: Shape) -> None:
        """Make the plan for images (N,C,H,W) of floats now."""
        self._plan(_Key(shape, Images.CHANNELS_FIRST), None)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the copied weights, and of all that was made of them so far."""
        return self._compiled.bytes

    @property
    def arena_bytes(self) -> int:
        """Bytes of the maps of one call of ``batch_size`` images; 0 before there is a plan for that."""
        plans = list(self._plans.items())  # another thread may add one meanwhile
        arenas = [plan.arena_bytes for key, (plan, _) in plans if key.shape[0] == self._batch_size]
        return max(arenas, default=0)

    def _plan(self, key: _Key, table: np.ndarray | None) -> tuple[Any, Shape]:
        """The plan, and the shape of its result in memory."""
        found = self._plans.get(key)
        if found is not None:
            return found
        with self._lock:
            found = self._plans.get(key) or self._new_plan(key, table)
            if key not in self._plans and len(self._plans) >= MOST_PLANS:
                unexpected = (one for one in self._plans if one.shape[0] != self._batch_size)
                del self._plans[next(unexpected, next(iter(self._plans)))]
            self._plans[key] = found
            return found

    def _new_plan(self, key: _Key, table: np.ndarray | None) -> tuple[Any, Shape]:
        output = self._compiled.output_shape(key.shape)
        in_memory = output if len(output) == 2 else (output[0], *output[2:], output[1])
        plan = self._compiled.plan(key.shape, key.images, table)
        if self._waking is not None:
            plan.choose_threads(self._threads, *self._waking)
        return plan, in_memory


class Kept:
    """A prepared graph, and what the layers were like when it was made.

    Every operation of the contract and of torch that changes an array counts its version up.  A write
    through a NumPy view of an array does not.

    Args: plain the graph of the layers, one node each · precision what was computed in
    """

    def __init__(self, prepared: PreparedGraph, plain: Graph, precision: str) -> None:
        self.prepared = prepared
        self._plain, self._precision = plain, precision
        self._arrays, self._versions, self._options = _state(plain)

    def is_of(self, plain: Graph, precision: str) -> bool:
        """Whether it serves this graph: all layers have the same arrays, values and options as then."""
        if plain is not self._plain or precision != self._precision:
            return False
        arrays, versions, options = _state(plain)
        return (
            versions == self._versions
            and all(a is b for a, b in zip(arrays, self._arrays, strict=True))
            and options == self._options
        )


def _state(graph: Graph) -> tuple[list[Any], list[int], list[Any]]:
    """The arrays of all layers, their versions, and the layers' options."""
    layers = [layer for node in graph for layer in node.operation.layers]
    arrays = [a for layer in layers for a in (*layer.params.values(), *layer.buffers.values())]
    options = [(layer.attributes(), layer.arguments(training=False)[1]) for layer in layers]
    return arrays, [a._version for a in arrays], options
