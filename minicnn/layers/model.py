"""What a whole model can do: show the graphs that run, predict, and print itself as a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicnn import shapes
from minicnn.graph import Graph, build, fold_batch_norm, prune, run
from minicnn.graph import fuse as fuse_nodes
from minicnn.graph.plans import CompiledGraph
from minicnn.graph.prepared import Kept, PreparedGraph
from minicnn.layers.container import Container
from minicnn.layers.layer import Shape


class Model(Container):
    """A container that can be trained and predicts.  `Sequential` is one."""

    input_shape: Shape | None = None
    """Shape (C,H,W) of the images it was made for, if known."""

    _prepared: Kept | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_prepared": None}

    def graph(self, *, training: bool, fuse: bool = True, input_shape: Shape | None = None) -> Graph:
        """What really runs, as a printable list of operations.

        Args: training: what a `Trainer` runs; else what `predict` runs, where batch norms right after
                  convolutions are folded into them, with the weights as they are now
              fuse: False leaves every layer an operation of its own, and folds nothing
              input_shape: (N,C,H,W) of all images to predict: batch norms are then folded only where that
                  costs less time than it saves
        """
        graphs = self._kept_graphs()
        if training:
            self._prepared = None  # its weights are about to change, and it holds memory
            return graphs.get_or_make(
                ("training", fuse, self.precision), lambda: prune(self._fused(fuse), need_dx=False)
            )
        if fuse:
            plain = graphs.get_or_make("plain", lambda: build(self))
            folded = fold_batch_norm(plain, input_shape)
            if folded is not plain:
                return self._in_precision(fuse_nodes(folded))
        return graphs.get_or_make(("evaluation", fuse, self.precision), lambda: self._fused(fuse))

    def _fused(self, wanted: bool) -> Graph:
        plain = build(self)
        return self._in_precision(fuse_nodes(plain) if wanted else plain)

    def predict(self, x: np.ndarray, batch_size: int = 256, *, fuse: bool = True) -> np.ndarray:
        """Logits (N,K) of images x (N,C,H,W), in evaluation mode, ``batch_size`` at a time.

        It runs ``graph(training=False, fuse=fuse, input_shape=x.shape)``, or on cpp what `prepared` gives.
        """
        if batch_size < 1:
            shapes.fail("predict", "batch_size", "at least 1", batch_size)
        backend, x = self.bound(), np.asarray(x)
        prepared = self.prepared(x.shape) if fuse else None
        if prepared is not None:
            x = x.astype(self.dtype, copy=False)
            parts = [prepared.run(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        graph = self.graph(training=False, fuse=fuse, input_shape=x.shape)
        return run.predict(graph, backend, x, batch_size=batch_size, dtype=self.dtype)

    def prepared(self, input_shape: Shape) -> PreparedGraph | None:
        """``graph(training=False)`` made ready to predict images (N,C,H,W), if the backend can do that.

        It is kept, and serves as long as all layers are as they are now, or until the model trains on.
        None where predicting has to go operation by operation: see `InferenceSession`; and where there
        are no images, or none of a shape that the model takes.
        """
        plain = self._kept_graphs().get_or_make("plain", lambda: build(self))
        if not CompiledGraph.suits(plain, self.backend, self.dtype):
            return None
        kept = self._prepared
        if kept is None or not kept.is_of(plain, self.precision):
            made = PreparedGraph(self.graph(training=False), self.backend, measured=False)
            self._prepared = kept = Kept(made, plain, self.precision)
        return kept.prepared if kept.prepared.takes(input_shape) else None

    def predict_proba(self, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Probabilities (N,K): the softmax of `predict`."""
        logits = self.predict(x, batch_size)
        backend = self.backend
        return backend.to_numpy(backend.softmax_forward(backend.asarray(logits))).copy()

    def summary(self, input_shape: Shape | None = None, *, fuse: bool = True) -> str:
        """A table of layers, output shapes, parameters and multiply-adds for one sample.

        Shapes and multiply-adds need an ``input_shape`` (C,H,W), here or at construction.  With ``fuse``
        there are also columns of the fused operations that run a layer in training and in evaluation.
        """
        from minicnn.summary import summary

        return summary(self, input_shape or self.input_shape, fuse=fuse)

    def label(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return self.summary()
