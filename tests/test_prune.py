"""The pass `prune`: which nodes run backward, and which gradients they are asked for."""

from __future__ import annotations

import every_model
import numpy as np
import pytest

from minicnn.graph import Graph, build, prune, run
from minicnn.layers import BatchNorm2d, Conv2d, Flatten, ReLU, Residual, Sequential


def net() -> Sequential:
    """A convolution, and a block whose shortcut has one."""
    block = Residual(Sequential({"conv1": Conv2d(1, 1, 1)}), Conv2d(1, 1, 1), activation=ReLU())
    return Sequential({"stem": Conv2d(1, 1, 1), "block": block, "flatten": Flatten()}, backend="numpy")


def backward_of(model: Sequential, *, need_dx: bool) -> dict[str, tuple[bool, ...] | None]:
    """Name of a node's first layer, or its operation -> the gradients it is asked for; None: not run."""
    graph = prune(build(model), need_dx=need_dx)
    return {(node.names or (node.op,))[0]: node.needs if node.in_backward else None for node in graph}


def test_all_run_and_only_the_inputs_gradient_is_left_out() -> None:
    expected: dict[str, tuple[bool, ...] | None] = {
        "stem": (False,), "block.downsample": (True,), "block.conv1": (True,), "add": (True, True),
        "block.relu": (True,), "flatten": (True,),
    }  # fmt: skip
    assert backward_of(net(), need_dx=False) == expected
    assert backward_of(net(), need_dx=True) == expected | {"stem": (True,)}


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        (["stem"], {"stem": None, "block.downsample": (False,), "block.conv1": (False,)}),
        (["stem", "block.downsample"],
         {"stem": None, "block.downsample": None, "block.conv1": (False,), "add": (True, False)}),
        (["block"], {"stem": (False,), "block.downsample": (True,), "block.conv1": (True,)}),
        (["stem", "block"],
         {"stem": None, "block.downsample": None, "block.conv1": None, "add": None, "flatten": None}),
    ],
    ids=",".join,
)  # fmt: skip
def test_what_is_below_the_first_trained_layer_rests(
    frozen: list[str], expected: dict[str, tuple[bool, ...] | None]
) -> None:
    model = net()
    model.freeze(*frozen)
    found = backward_of(model, need_dx=False)
    assert {name: found[name] for name in expected} == expected


def test_the_inputs_gradient_needs_every_node() -> None:
    model = net()
    model.freeze("stem", "block")
    assert None not in backward_of(model, need_dx=True).values()


@pytest.mark.parametrize("name", every_model.NAMES)
def test_every_model_gets_the_same_gradients_pruned(name: str, rng: np.random.Generator) -> None:
    """Without the input's gradient, and with the first half of the layers frozen."""
    model, x, _ = every_model.make(name, rng)
    state, generators = model.state_dict(), model.generator_state()

    def gradients(graph: Graph) -> dict[str, np.ndarray]:
        model.load_state_dict(state)
        model.set_generator_state(generators)
        y, saved = run.forward(graph, model.backend, x, True)
        run.backward(graph, model.backend, np.ones_like(y), saved)
        return {key: a.copy() for key, a in model.named_gradients().items()}

    everything = gradients(build(model))
    pruned = gradients(prune(build(model), need_dx=False))
    assert pruned.keys() == everything.keys()
    for key, a in everything.items():
        np.testing.assert_array_equal(pruned[key], a, err_msg=key)
    layers = [(own_name, layer) for own_name, layer in model.named_layers() if layer.params]
    for own_name, layer in layers[: len(layers) // 2]:
        if not isinstance(layer, BatchNorm2d):  # a frozen one is in evaluation mode and gives other values
            model.freeze(own_name)
    graph = prune(build(model), need_dx=False)
    assert not all(node.in_backward for node in graph)
    left = gradients(graph)
    assert left.keys() == {
        f"{own_name}.{key}" for own_name, layer in layers if layer.requires_grad for key in layer.params
    }
    for key, a in left.items():
        np.testing.assert_array_equal(a, everything[key], err_msg=key)


def test_the_graph_stays_as_it_was() -> None:
    model = net()
    model.freeze("stem")
    plain = build(model)
    prune(plain, need_dx=False)
    assert all(node.in_backward and all(node.needs) for node in plain)
