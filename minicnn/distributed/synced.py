"""A sharded step in which batch norms learn from the whole batch, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from minicnn.backends import Array, Backend
from minicnn.distributed.layout import Layout
from minicnn.distributed.processes import Group, finish
from minicnn.distributed.shards import Shards
from minicnn.distributed.side_by_side import Draws, EachShard, OverShards
from minicnn.distributed.step import Part, ShardedStep
from minicnn.distributed.sync_batch_norm import SyncedBatchNorm
from minicnn.graph import Graph, run
from minicnn.graph.operations import Operation
from minicnn.layers.batch_norm2d import BatchNorm2d
from minicnn.layers.layer import Layer

if TYPE_CHECKING:
    from minicnn.trainer import Trainer


class Computed(NamedTuple):
    """What came of a shard: its mean loss, its right answers and its layers' gradients."""

    loss: float
    correct: int
    gradients: dict[Layer, dict[str, Array]]


class SyncedStep(ShardedStep):
    """A sharded step whose batch norms see the whole batch.

    All shards of a process go through the graph side by side, since a batch norm needs all of them before
    any can go on.  So a value of the graph is here the list of the shards' arrays.  A batch norm joins the
    moments of all shards of all processes pairwise, in the tree in which gradients are added; so its bits
    do not depend on the number of processes either.

    Torch:  nn.SyncBatchNorm, which takes cards only
    """

    def __init__(self, trainer: Trainer, shards: Shards, group: Group) -> None:
        super().__init__(trainer, shards, group)
        self._computed: dict[int, Computed] = {}

    def check(self, images: int) -> None:
        """Refuse a batch of so few images that batch norm cannot learn from it.  Raises ValueError."""
        if images < 2 and self.has_batch_norm():
            raise ValueError(
                "[shards] expected at least 2 images in a batch, since batch norm cannot learn from one "
                f"alone, got a batch of {images}: choose another batch size"
            )

    def layout(self) -> Layout:
        """Running statistics have no place in it: they are moved once, and alike on all processes."""
        return Layout(self.trainer.model, with_buffers=False)

    def _total(self, layout: Layout, parts: list[Part], meanwhile: Callable[[], object] | None) -> Array:
        self._computed = self._compute(parts, meanwhile)
        row = self._sum(layout, parts)
        self._computed = {}
        places = [bucket.place for bucket in (*layout.buckets, layout.last)]
        finish(self._begin(layout, row[place], place) for place in places)
        layout.take(row, layout.parameters)
        return row

    def _fill(self, layout: Layout, row: Array, part: Part, *_: object) -> None:
        """Fill a shard's row with what was computed of it."""
        computed = self._computed[part.shard]
        for layer, gradients in computed.gradients.items():
            layer.grads = gradients
        layout.put_gradients(row)
        self.set_numbers(layout, row, part, computed.loss, computed.correct)

    def _compute(self, parts: list[Part], meanwhile: Callable[[], object] | None) -> dict[int, Computed]:
        """Take all shards of this process through the graph, forward and backward."""
        trainer, each = self.trainer, cast(Backend, EachShard(self.trainer.backend))
        graph = self._graph(Draws(trainer.optimizer.steps, [part.shard for part in parts]))
        logits, saved = run.forward(graph, each, [trainer._on_backend(part.x) for part in parts], True)
        losses = [
            trainer.loss_of(a, trainer._on_backend(part.y), part.share)
            for a, part in zip(logits, parts, strict=True)
        ]
        run.backward(graph, each, [dlogits for _, _, dlogits in losses], saved)
        if meanwhile is not None:
            meanwhile()
        layers = {layer for _, layer in trainer.model.named_layers() if layer.grads}
        computed = {}
        for number, (part, (loss, probs, _)) in enumerate(zip(parts, losses, strict=True)):
            gradients = {layer: {name: a[number] for name, a in layer.grads.items()} for layer in layers}
            right = trainer._count_correct(trainer.backend.to_numpy(probs), trainer._on_host(part.y))
            mean = float(loss) if len(part.y) else 0.0
            computed[part.shard] = Computed(mean, right, gradients)
        return computed

    def _graph(self, draws: Draws) -> Graph:
        """What a step runs, for the shards of this process side by side.

        Raises: ValueError if a batch norm is hidden in a layer with a forward of its own
        """
        graph, seen, nodes = self.trainer.graph, set(), []
        for node in graph.nodes:
            operation: Operation = OverShards(node.operation, draws)
            norm = operation.layers[0] if operation.layers else None
            if isinstance(norm, BatchNorm2d) and norm.requires_grad:
                seen.add(norm)
                operation = SyncedBatchNorm(node.operation, draws, self.group, norm)
            nodes.append(node._replace(operation=operation))
        for name, layer in self.trainer.model.named_layers():
            if layer.buffers and layer.requires_grad and layer not in seen:
                raise ValueError(
                    "[Trainer] sync_batch_norm: expected batch norms that the model's graph shows, got "
                    f"{name} inside a layer with a forward of its own"
                )
        return Graph(tuple(nodes), graph.output, precision=graph.precision)
