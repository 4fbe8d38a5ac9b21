"""The pass `prune`: which nodes run backward, and which gradients they are asked for."""

from __future__ import annotations

import pytest

from minicnn.graph import build, prune
from minicnn.layers import Conv2d, Flatten, ReLU, Residual, Sequential


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


def test_the_graph_stays_as_it_was() -> None:
    model = net()
    model.freeze("stem")
    plain = build(model)
    prune(plain, need_dx=False)
    assert all(node.in_backward and all(node.needs) for node in plain)
