"""The graph of a model, its executor, and what follows from them: shared, replaced and own layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minicnn import Trainer, models, optim
from minicnn.backends import Array, Backend
from minicnn.graph import Graph, build, run
from minicnn.layers import (
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)


def small() -> Sequential:
    """A convolution, a block with a shortcut, branches, and a dense layer."""
    return Sequential(
        {
            "conv": Conv2d(2, 4, 3, padding=1),
            "block": Residual(
                Sequential({"conv1": Conv2d(4, 4, 1), "bn1": BatchNorm2d(4)}),
                Sequential(Conv2d(4, 4, 1)),
                activation=ReLU(),
            ),
            "branches": Parallel({"a": Conv2d(4, 1, 1), "b": Sequential(MaxPool2d(1), ReLU())}),
            "flatten": Flatten(),
            "fc": Dense(5 * 4 * 4, 3),
        },
        input_shape=(2, 4, 4),
    )


# ---- what a graph is -----------------------------------------------------------------------------


def test_a_graph_is_a_flat_list_of_nodes_in_order() -> None:
    graph = build(small())
    assert [(node.op, node.inputs, node.output, node.names) for node in graph] == [
        ("conv2d", (0,), 1, ("conv",)),
        ("conv2d", (1,), 2, ("block.downsample.0",)),
        ("conv2d", (1,), 3, ("block.conv1",)),
        ("batch_norm2d", (3,), 4, ("block.bn1",)),
        ("add", (4, 2), 5, ()),
        ("relu", (5,), 6, ("block.relu",)),
        ("conv2d", (6,), 7, ("branches.a",)),
        ("max_pool2d", (6,), 8, ("branches.b.0",)),
        ("relu", (8,), 9, ("branches.b.1",)),
        ("concat", (7, 9), 10, ()),
        ("flatten", (10,), 11, ("flatten",)),
        ("dense", (11,), 12, ("fc",)),
    ]
    assert graph.output == 12


def test_nodes_tell_their_attributes_and_owners() -> None:
    model = small()
    nodes = {node.names[0]: node for node in build(model) if node.names}
    assert nodes["conv"].attributes["conv"].padding == (1, 1)
    assert nodes["branches.b.0"].attributes["pool"].kernel_size == (1, 1)
    assert nodes["conv"].owner is model.children["conv"]
    assert build(Sequential(Dropout(0.3))).nodes[0].attributes == {"p": 0.3}


def test_a_printed_graph_has_a_line_for_each_node() -> None:
    model = Sequential({"conv": Conv2d(1, 4, 3), "act": ReLU(), "pool": MaxPool2d(2), "flat": Flatten()})
    assert str(model.graph(training=True)).splitlines() == [
        "v3 = conv2d_relu_max_pool2d(v0)  conv, act, pool  Conv2d(1, 4, 3), ReLU(), MaxPool2d(2)",
        "v4 = flatten(v3)                 flat             Flatten()",
        "return v4",
    ]


def test_shapes_and_multiply_adds_follow_from_the_nodes() -> None:
    graph = build(small())
    shapes = graph.shapes((2, 4, 4))
    assert shapes[1] == (4, 4, 4)
    assert shapes[10] == (5, 4, 4)
    assert shapes[graph.output] == (3,)
    assert graph.multiply_adds((2, 4, 4)) == 16 * (4 * 18 + 16 + 16 + 4) + 80 * 3


def test_a_graph_of_nothing_gives_its_input(backend: Backend) -> None:
    model = Sequential(backend=backend)
    x = backend.asarray(np.ones((1, 2), np.float32))
    y, saved = model.forward(x, True)
    assert y is x
    assert model.backward(x, saved) is x
    assert model.backward(x, [], need_dx=False) is None


# ---- the executor --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.names())
def test_every_value_is_dropped_after_its_last_reader(name: str) -> None:
    size = 80 if name == "inception_v3" else 32
    graph = models.build(name, in_channels=1, num_classes=2, image_size=size).graph(training=False)
    alive = {0}
    for node, unread in zip(graph.nodes, graph.last_reads, strict=True):
        assert alive.issuperset(node.inputs)
        alive -= {*unread}
        alive.add(node.output)
    assert alive == {graph.output}


def test_what_was_saved_is_dropped_as_it_is_used(backend: Backend) -> None:
    model = small()
    model.bind(backend)
    graph = model.graph(training=True)
    y, saved = run.forward(graph, backend, backend.asarray(np.ones((2, 2, 4, 4), np.float32)), True)
    assert saved is not None
    assert len(saved) == len(graph)
    run.backward(graph, backend, y, saved)
    assert saved == []
    message = r"^\[backward\] saved: expected 10 entries, of a forward pass in training .*, got "
    with pytest.raises(ValueError, match=message + "0 entries$"):
        run.backward(graph, backend, y, saved)
    with pytest.raises(ValueError, match=message + "None$"):
        run.backward(graph, backend, y, None)


def test_gradients_that_meet_are_added_in_the_order_of_the_branches(backend: Backend) -> None:
    """1e8 + 1 is 1e8 in float32: the sum tells which two were added first."""
    model = Sequential(Parallel(Scale(1e8), Scale(1.0), Scale(-1e8)), Flatten(), backend=backend)
    x = backend.asarray(np.ones((1, 1, 1, 1), np.float32))
    _, saved = model.forward(x, True)
    dx = model.backward(backend.asarray(np.ones((1, 3), np.float32)), saved)
    assert float(backend.to_numpy(dx).item()) == 0.0


# ---- user's own layers ---------------------------------------------------------------------------


class Scale(Layer):
    """A user's own layer, x * factor, which has no parameters."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        return x * self.factor, () if training else None

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        assert saved == ()
        return dy * self.factor if need_dx else None


class Twice(Sequential):
    """A user's own container, which runs its children in a way of its own."""

    def forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y, saved = super().forward(x, training)
        return y + y, saved

    def backward(self, dy: Array, saved: Any, need_dx: bool = True) -> Array | None:
        return super().backward(dy + dy, saved, need_dx)


def test_own_layers_and_containers_are_nodes_as_they_are(backend: Backend) -> None:
    model = Sequential(
        Scale(3.0), Twice(Conv2d(1, 1, 1, bias=False), ReLU()), Flatten(), backend=backend, dtype="float64"
    )
    assert [node.op for node in model.graph(training=True)] == ["Scale", "Twice", "flatten"]
    model.load_state_dict({"1.0.weight": np.full((1, 1, 1, 1), 5.0)})
    x = backend.asarray(np.full((1, 1, 1, 1), 2.0))
    graph = model.graph(training=True)
    y, saved = run.forward(graph, backend, x, True)
    assert float(backend.to_numpy(y).item()) == 2 * 3 * 5 * 2
    run.backward(graph, backend, backend.asarray(np.ones((1, 1))), saved)
    gradient = model.named_gradients()["1.0.weight"]
    assert float(backend.to_numpy(gradient).item()) == 2 * 3 * 2
    assert "Twice" in str(model)


# ---- shared and replaced layers ------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_a_layer_at_two_places_gets_the_sum_of_its_gradients(
    backend: Backend, fuse: bool, rng: np.random.Generator
) -> None:
    shared, norm = Conv2d(2, 2, 3, padding=1), BatchNorm2d(2)
    model = Sequential(
        shared,
        ReLU(),
        norm,
        shared,
        norm,
        ReLU(),
        Flatten(),
        Dense(18, 2),
        backend=backend,
        dtype="float64",
    )
    conv, bn = nn.Conv2d(2, 2, 3, padding=1).double(), nn.BatchNorm2d(2).double()
    module = nn.Sequential(
        conv, nn.ReLU(), bn, conv, bn, nn.ReLU(), nn.Flatten(), nn.Linear(18, 2).double()
    )
    module.load_state_dict({name: torch.from_numpy(a) for name, a in model.state_dict().items()})
    x, y = rng.standard_normal((3, 2, 3, 3)), np.array([0, 1, 1])
    Trainer(model, optim.SGD(lr=0.1), fuse=fuse).compute_gradients(x, y)
    nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    found = model.named_gradients()
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(
            backend.to_numpy(found[name]), parameter.grad, rtol=1e-9, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("make", [lambda: optim.SGD(0.1, momentum=0.9), lambda: optim.Adam(0.01)])
def test_a_layer_at_two_places_is_trained_as_in_torch(
    backend: Backend, make: Callable[[], optim.Optimizer], rng: np.random.Generator
) -> None:
    shared = Conv2d(2, 2, 3, padding=1)
    layers = {"a": shared, "act": ReLU(), "b": shared, "flat": Flatten(), "fc": Dense(18, 2)}
    model = Sequential(layers, backend=backend, dtype="float64")
    assert [*model.named_parameters()] == ["a.weight", "a.bias", "fc.weight", "fc.bias"]
    assert [*model.state_dict()] == ["a.weight", "a.bias", "b.weight", "b.bias", "fc.weight", "fc.bias"]
    assert "76 parameters" in str(model)  # 2*2*9 + 2 and 18*2 + 2, the shared ones once
    conv = nn.Conv2d(2, 2, 3, padding=1)
    module = nn.Sequential(
        OrderedDict(a=conv, act=nn.ReLU(), b=conv, flat=nn.Flatten(), fc=nn.Linear(18, 2))
    ).double()
    module.load_state_dict({name: torch.from_numpy(a) for name, a in model.state_dict().items()})
    ours = make()
    theirs = (
        torch.optim.SGD(module.parameters(), 0.1, 0.9)
        if isinstance(ours, optim.SGD)
        else torch.optim.Adam(module.parameters(), 0.01)
    )
    trainer = Trainer(model, ours)
    for _ in range(4):
        x, y = rng.standard_normal((3, 2, 3, 3)), rng.integers(0, 2, 3)
        trainer.step(x, y)
        theirs.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        theirs.step()
    for name, a in module.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], a, rtol=1e-8, atol=1e-11, err_msg=name)


def test_a_replaced_child_is_what_runs(backend: Backend, rng: np.random.Generator) -> None:
    model = Sequential(
        Conv2d(1, 2, 3), ReLU(), Flatten(), Dense(8, 2), backend=backend, input_shape=(1, 4, 4)
    )
    x = rng.standard_normal((2, 1, 4, 4)).astype(np.float32)
    trainer = Trainer(model, optim.SGD(lr=0.1))
    trainer.step(x, np.array([0, 1]))
    before = model.predict(x)
    model.children["1"] = Scale(2.0)
    assert "Scale" in str(model)
    assert [node.op for node in trainer.graph] == ["conv2d", "Scale", "flatten", "dense"]
    assert np.abs(model.predict(x) - before).max() > 1e-4
    trainer.step(x, np.array([0, 1]))


def test_freezing_changes_the_graph_of_a_trainer_that_is_there(backend: Backend) -> None:
    model = models.create("lenet5", in_channels=1, num_classes=2, image_size=12, backend=backend)
    trainer = Trainer(model, optim.SGD(lr=0.1))
    assert all(node.in_backward for node in trainer.graph)
    model.freeze("conv1", "conv2", "fc1")
    assert [node.in_backward for node in trainer.graph] == [False] * 4 + [True, True]


def test_graphs_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    one = model.graph(training=True)
    assert model.graph(training=True) is one
    assert model.graph(training=True, fuse=False) is not one
    assert isinstance(one, Graph)
    monkeypatch.setattr("minicnn.layers.model.build", None)  # would fail if it were called
    assert model.graph(training=True) is one


# ---- binding -------------------------------------------------------------------------------------


def test_a_layer_that_is_not_bound_says_so() -> None:
    layer = Conv2d(1, 1, 1)
    message = r"^\[Conv2d\] backend: expected a layer that bind\(\) has bound, got an unbound one$"
    with pytest.raises(ValueError, match=message):
        _ = layer.backend
    with pytest.raises(ValueError, match=message):
        layer.forward(np.zeros((1, 1, 1, 1), np.float32), False)
    assert layer.params == {}


def test_asking_for_a_graph_binds_nothing() -> None:
    model = small()
    assert len(model.graph(training=True)) == 10
    assert "conv2d" in str(model.graph(training=False))
    assert model.summary()
    assert all(layer.bound_backend is None for _, layer in model.named_layers())
