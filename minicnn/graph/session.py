"""Predicting with a model that is prepared once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minicnn import shapes
from minicnn.graph import run
from minicnn.graph.captured import CapturedGraph
from minicnn.graph.graph import Graph
from minicnn.graph.operations import Shape
from minicnn.graph.plans import CompiledGraph
from minicnn.graph.prepared import NO_LIMIT, PreparedGraph
from minicnn.ops.make_batch import normalized

if TYPE_CHECKING:
    from minicnn.layers.model import Model

MOST_TOGETHER = 256
"""Images that run together, where ``batch_size`` is not larger; more go through in parts."""

Normalization = tuple[Sequence[float], Sequence[float]]
"""The mean and the standard deviation of each channel, of pixels in [0, 1]."""


class Memory(NamedTuple):
    """Bytes that a session holds."""

    weights: int
    """The weights, and what was made of them: packed filters, filters transformed for Winograd's way."""
    arena: int
    """The maps of one call of ``batch_size`` images; calls at the same time have an arena each."""


class InferenceSession:
    """A model prepared once, for predictions from one image on.

    Batch norms are folded into convolutions, and the weights are copied: the session predicts the same
    when the model trains on.  With the cpp backend filters are packed or transformed, the way of every
    operation is chosen, and all maps have their places in one block of memory; `run` is one call into C++
    that allocates only its result.  On cuda the operations on images of one shape are captured as one CUDA
    graph.  Otherwise, as with a layer of one's own, it runs operation by operation.

    Several threads may call `run` at once, and get the same bits as alone; on cuda they take turns.  There
    whether products are rounded to TF32 is a setting of the process: predict in tf32 in one thread while
    another one trains or predicts in float32, and the other one may be rounded too.

    Args:   model_or_checkpoint a `Model`, or the path of a checkpoint
            batch_size how many images are to be expected; any other number is served too
            backend numpy, cpp, cuda, or auto: the model's own, of a checkpoint the best that there is
            precision float32, bfloat16, or tf32 on cuda: see `minicnn.precision`
            threads how many threads a call into C++ may take at most, where `run` is one call; None for
                as many as `set_num_threads` says
            normalization the means and standard deviations of channels by which uint8 images are
                normalised; a checkpoint has its own
    Raises: ValueError; CheckpointError naming the file; BackendUnavailable
    Torch:  torch.jit.optimize_for_inference(torch.jit.script(model.eval()))
    """

    def __init__(
        self, model_or_checkpoint: Model | str | Path, *, batch_size: int = 1, backend: str = "auto",
        precision: str = "float32", threads: int | None = None, normalization: Normalization | None = None,
    ) -> None:  # fmt: skip
        self.batch_size = shapes.at_least_1("InferenceSession", "batch_size", batch_size)
        limit = NO_LIMIT if threads is None else shapes.at_least_1("InferenceSession", "threads", threads)
        if isinstance(model_or_checkpoint, str | Path):
            model, normalization = _loaded(Path(model_or_checkpoint), backend, precision, normalization)
        else:
            model = _copied(model_or_checkpoint, backend, precision)
        self.backend, self.precision, self._dtype = model.backend, precision, model.dtype
        self._graph = model.graph(training=False)
        arrays = {**model.named_parameters(), **model.named_buffers()}
        self._weight_bytes = sum(int(a.nbytes) for a in arrays.values())
        self._normalization = None if normalization is None else _checked(normalization)
        self._table: np.ndarray | None = None
        self._captured: CapturedGraph | None = None
        self._prepared: PreparedGraph | None = None
        if CompiledGraph.suits(self._graph, self.backend, self._dtype):
            self._prepared = PreparedGraph(
                self._graph, self.backend, batch_size=batch_size, threads=min(limit, NO_LIMIT)
            )
            _drop_weights(self._graph)
            if model.input_shape is not None:
                self._prepared.prepare((self.batch_size, *model.input_shape))
        elif CapturedGraph.suits(self._graph, self.backend):
            self._captured = CapturedGraph(self._graph, self.backend, self._dtype)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (N,K) of images x (N,C,H,W), in evaluation mode.

        uint8 images are normalised first; of all other dtypes, values are taken as they are.
        Raises: ValueError where x is no batch of images that the model takes, or holds bytes that the
                session has no normalization for
        """
        x = np.asarray(x)
        if x.ndim not in (2, 4):
            shapes.fail("InferenceSession", "x", "images (N, C, H, W)", f"shape {x.shape}")
        if x.dtype != np.uint8:
            x = x.astype(self._dtype, copy=False)
        elif self._normalization is None:
            expected = "normalised images, or a session with a normalization"
            shapes.fail("InferenceSession", "x", expected, "uint8")
        most = max(self.batch_size, MOST_TOGETHER)
        if len(x) > most:
            parts = [self._run_part(x[start : start + most]) for start in range(0, len(x), most)]
            return np.concatenate(parts)
        return self._run_part(x)

    @property
    def memory(self) -> Memory:
        """Bytes of the weights and of the arena for ``batch_size`` images.

        The arena is 0 where operations run one by one, and before the first call where the model does not
        say what images it takes.
        """
        if self._prepared is None:
            return Memory(self._weight_bytes, 0)
        return Memory(self._prepared.weight_bytes, self._prepared.arena_bytes)

    def __repr__(self) -> str:
        how = "one call" if self._prepared else "one launch" if self._captured else "operation by operation"
        weights, maps = (f"{size / 2**20:.2f} MiB" for size in self.memory)
        return (
            f"InferenceSession({self.backend.name}, {self.precision}, batch_size={self.batch_size}, {how}, "
            f"{weights} of weights, {maps} of maps)"
        )

    def _run_part(self, x: np.ndarray) -> np.ndarray:
        if len(x) == 0:
            return np.empty((0, *self._graph.shapes(x.shape[1:])[self._graph.output]), self._dtype)
        if self._prepared is None:
            return self._run_graph(x)
        if x.dtype != np.uint8:
            return self._prepared.run(x)
        self._check_channels(x.shape)
        if self._table is None:
            self._table = self._table_of_bytes(x.shape[1])
        return self._prepared.run(x, self._table)

    def _run_graph(self, x: np.ndarray) -> np.ndarray:
        """The outputs by the graph, one operation after the other."""
        if x.dtype == np.uint8:
            self._check_channels(x.shape)
            x = normalized(x, *self._means_and_deviations(), self._dtype)
        if self._captured is not None:
            return self._captured.run(x)
        return run.predict(self._graph, self.backend, x, batch_size=len(x), dtype=self._dtype)

    def _means_and_deviations(self) -> tuple[np.ndarray, np.ndarray]:
        assert self._normalization is not None
        return self._normalization

    def _check_channels(self, shape: Shape) -> None:
        expected = len(self._means_and_deviations()[0])
        if len(shape) != 4 or shape[1] != expected:
            shapes.fail("InferenceSession", "x", f"images (N, C={expected}, H, W)", f"shape {shape}")

    def _table_of_bytes(self, channels: int) -> np.ndarray:
        """What each byte of a channel becomes, (C,256)."""
        every_byte = np.broadcast_to(np.arange(256, dtype=np.uint8), (1, channels, 1, 256))
        return normalized(every_byte, *self._means_and_deviations(), np.float32)[0, :, 0]


def _loaded(
    path: Path, backend: str, precision: str, normalization: Normalization | None
) -> tuple[Model, Normalization]:
    """A checkpoint's model, which nobody else has, and its normalization unless another is given."""
    from minicnn.saved_model import load_model

    saved, model = load_model(path, backend, precision)
    return model, (saved.mean, saved.std) if normalization is None else normalization


def _copied(model: Model, backend: str, precision: str) -> Model:
    """A copy of the model that computes in this precision, on this backend."""
    if not hasattr(model, "graph"):
        expected = "a model such as Sequential, or the path of a checkpoint"
        shapes.fail("InferenceSession", "model_or_checkpoint", expected, type(model).__name__)
    if model.bound_backend is None:
        model.bind(backend)
    twin = copy.deepcopy(model)
    for _, layer in twin.named_layers():
        layer.grads = {}
    if backend not in ("auto", twin.backend.name):
        state = twin.state_dict()
        twin.bind(backend, dtype=twin.dtype, precision="float32")
        twin.load_state_dict(state)
    twin.set_precision(precision)
    return twin


def _checked(normalization: Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (C,) as arrays."""
    if len(normalization) != 2:
        shapes.fail("InferenceSession", "normalization", "(means, standard deviations)", normalization)
    mean, std = (np.asarray(values, np.float64) for values in normalization)
    if mean.ndim != 1 or mean.shape != std.shape or not (np.isfinite(mean).all() and (std > 0).all()):
        expected = "a mean and a standard deviation above 0 for each channel"
        shapes.fail("InferenceSession", "normalization", expected, normalization)
    return mean, std


def _drop_weights(graph: Graph) -> None:
    """Let go of the weights of a graph's layers, which nobody else has."""
    for node in graph:
        for layer in node.operation.layers:
            layer.params, layer.buffers = {}, {}
