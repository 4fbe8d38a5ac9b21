"""What runs of a model: a graph, the passes that change it, and the executor that runs it.

`minicnn.graph.graph` has the graph itself, `operations` what a node can be, `run` the executor; each
pass has a file of its own: `fuse`, `fold_batch_norm`, `cast`, `prune`.
"""

from minicnn.graph.cast import insert_casts
from minicnn.graph.fold_batch_norm import fold_batch_norm
from minicnn.graph.fuse import fuse
from minicnn.graph.graph import Builder, Graph, Node, build
from minicnn.graph.prune import prune

__all__ = ["Builder", "Graph", "Node", "build", "fold_batch_norm", "fuse", "insert_casts", "prune"]
