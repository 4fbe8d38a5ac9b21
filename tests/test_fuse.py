"""The pass `fuse`: fused operations against their compositions, and fused graphs against plain ones."""

from __future__ import annotations

import every_model
import numpy as np
import pytest

from minicnn import Trainer, models, optim
from minicnn.backends import Backend
from minicnn.graph import Graph, build, fuse, prune, run
from minicnn.graph.fuse import PATTERNS
from minicnn.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Flatten,
    MaxPool2d,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)
from minicnn.testing import CASES, OPERATIONS, Case, assert_close, draw, run_backend

FUSED = [op for op, operation in OPERATIONS.items() if operation.before_kink]


def composed(backend: Backend) -> Backend:
    """The same backend with the contract's own compositions in place of its fused kernels."""
    defaults = {
        f"{op}_{way}": vars(Backend)[f"{op}_{way}"] for op in FUSED for way in ("forward", "backward")
    }
    twin: Backend = object.__new__(type("Composed", (type(backend),), defaults))  # a copy is the same one
    vars(twin).update(vars(backend))
    return twin


@pytest.mark.parametrize("case", [case for case in CASES if case.op in FUSED], ids=str)
def test_fused_operation_equals_its_composition(backend: Backend, case: Case, dtype: np.dtype) -> None:
    problem = draw(case, dtype)
    fused, plain = run_backend(backend, problem), run_backend(composed(backend), problem)
    for name, a in plain.outputs.items():
        assert_close(fused.outputs[name], a, problem.tolerance)
    for name, a in plain.gradients.items():
        assert_close(fused.gradients[name], a, problem.tolerance)


def every_pattern() -> Sequential:
    """A small model in which every fused operation has its place, and some layers have none."""
    return Sequential(
        {
            "stem": Conv2d(2, 4, 3, padding=1),
            "norm": BatchNorm2d(4),
            "relu": ReLU(),
            "pool": MaxPool2d(2),
            "block": Residual(
                Sequential(
                    {
                        "conv1": Conv2d(4, 4, 3, padding=1, bias=False),
                        "bn1": BatchNorm2d(4),
                        "relu1": ReLU(),
                        "conv2": Conv2d(4, 4, 3, padding=1, bias=False),
                        "bn2": BatchNorm2d(4),
                    }
                ),
                activation=ReLU(),
            ),
            "plain_block": Residual(Sequential(Conv2d(4, 4, 3, padding=1)), activation=ReLU()),
            "mixed": Parallel(
                Sequential(Conv2d(4, 3, 1), ReLU()),
                Sequential(Conv2d(4, 2, 3, padding=1), ReLU(), Conv2d(2, 2, 1)),
            ),
            "conv": Conv2d(5, 6, 3, padding=1),
            "conv_pool": MaxPool2d(2),
            "last": Conv2d(6, 6, 3, padding=1),
            "last_relu": ReLU(),
            "last_pool": MaxPool2d(2),
            "average": AvgPool2d(2),
            "flatten": Flatten(),
            "fc1": Dense(24, 7),
            "fc1_relu": ReLU(),
            "fc2": Dense(7, 3),
        },
        input_shape=(2, 32, 32),
    )


def gradients_of(
    model: Sequential, graph: Graph, backend: Backend, x: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    logits, saved = run.forward(graph, backend, backend.asarray(x), True)
    labels = backend.asarray(y)
    loss, probs = backend.softmax_cross_entropy_forward(logits, labels)
    dlogits = backend.softmax_cross_entropy_backward(probs, labels)
    dx = run.backward(graph, backend, dlogits, saved)
    found = {"loss": loss, "logits": logits, "dx": dx, **model.named_gradients()}
    return {name: backend.to_numpy(a).copy() for name, a in found.items()}


def check_fused_equals_plain(
    model: Sequential, backend: Backend, x: np.ndarray, y: np.ndarray, tolerance: float = 1e-12
) -> None:
    """Outputs, gradients and what training leaves behind are those of the graph without fused nodes."""
    state, generators, plain = model.state_dict(), model.generator_state(), build(model)
    expected = gradients_of(model, plain, backend, x, y)
    after = model.state_dict()
    model.load_state_dict(state)
    model.set_generator_state(generators)
    fused = gradients_of(model, fuse(plain), backend, x, y)
    assert fused.keys() == expected.keys()
    for name, a in expected.items():
        scale = np.abs(a).max() if a.size else 0
        np.testing.assert_allclose(fused[name], a, rtol=1e-10, atol=tolerance + 1e-10 * scale, err_msg=name)
    for name, a in model.state_dict().items():
        np.testing.assert_allclose(a, after[name], rtol=1e-12, err_msg=name)


def test_fused_graph_gives_the_plain_graphs_gradients(backend: Backend, rng: np.random.Generator) -> None:
    model = every_pattern()
    model.bind(backend, seed=1, dtype="float64")
    x, y = rng.standard_normal((4, 2, 32, 32)), rng.integers(0, 3, 4)
    check_fused_equals_plain(model, backend, x, y)


@pytest.mark.parametrize("name", every_model.NAMES)
def test_every_model_gives_the_same_fused(name: str, rng: np.random.Generator) -> None:
    """On numpy, whose fused operations are the compositions; backends prove theirs case by case."""
    model, x, y = every_model.make(name, rng)
    check_fused_equals_plain(model, model.backend, x, y)


def test_fusing_keeps_predictions(backend: Backend, rng: np.random.Generator) -> None:
    model = every_pattern()
    model.bind(backend, seed=1, dtype="float64")
    x = rng.standard_normal((3, 2, 32, 32))
    np.testing.assert_allclose(model.predict(x), model.predict(x, fuse=False), rtol=1e-11, atol=1e-12)


def test_every_pattern_is_used_and_marked() -> None:
    model = every_pattern()
    plain = build(model)
    assert not {node.op for node in plain} & {*PATTERNS}
    assert {node.op for node in fuse(plain)} > {*PATTERNS}
    assert {*PATTERNS} == {*FUSED}
    assert set(FUSED) <= set(str(model).split())
    assert "runs as" not in model.summary(fuse=False)


def test_a_fused_node_runs_the_layers_of_its_chain() -> None:
    nodes = {node.op: node for node in fuse(build(every_pattern()))}
    assert nodes["batch_norm2d_relu_max_pool2d"].names == ("norm", "relu", "pool")
    assert nodes["batch_norm2d_add_relu"].names == ("block.bn2", "block.relu")
    assert nodes["add_relu"].names == ("plain_block.relu",)
    assert nodes["conv2d_relu_max_pool2d"].names == ("last", "last_relu", "last_pool")
    assert nodes["conv2d_relu_max_pool2d"].owner.out_channels == 6
    assert nodes["conv2d_relu_max_pool2d"].attributes.keys() == {"conv", "pool"}


def test_patterns_go_from_long_to_short_and_bear_the_operations_names() -> None:
    lengths = [len(pattern) for pattern in PATTERNS.values()]
    assert lengths == sorted(lengths, reverse=True)
    for op, pattern in PATTERNS.items():
        assert op == "_".join(pattern)


def test_fused_operations_are_what_runs(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused graph reaches the backend's fused functions, a plain one only its primitives."""
    called: list[str] = []

    def spy(op: str) -> None:
        original = getattr(backend, f"{op}_forward")

        def forward(*args: object, **kwargs: object) -> object:
            called.append(op)
            return original(*args, **kwargs)

        monkeypatch.setattr(backend, f"{op}_forward", forward, raising=False)

    for op in FUSED:
        spy(op)
    model = every_pattern()
    model.bind(backend)
    x = backend.asarray(np.zeros((1, 2, 32, 32), np.float32))
    model.forward(x, False)
    run.forward(model.graph(training=True, fuse=False), backend, x, False)
    assert called == []
    run.forward(model.graph(training=True), backend, x, False)
    assert set(called) >= set(FUSED)


@pytest.mark.parametrize(("wanted", "shown"), [(True, True), (False, False)], ids=["fused", "plain"])
def test_trainer_fuses_when_asked(backend: Backend, wanted: bool, shown: bool) -> None:
    model = models.create("lenet5", in_channels=1, num_classes=3, image_size=12, backend=backend.name)
    trainer = Trainer(model, optim.SGD(lr=0.1), fuse=wanted)
    assert ("conv2d_relu_max_pool2d" in str(trainer.graph)) == shown


def test_fusing_twice_changes_nothing() -> None:
    once = fuse(build(every_pattern()))
    assert str(fuse(once)) == str(once)


def test_the_pass_changes_no_model(backend: Backend) -> None:
    model = every_pattern()
    model.bind(backend)
    before, names = str(build(model)), list(model.state_dict())
    fuse(build(model))
    Trainer(model, optim.SGD(lr=0.1)).step(np.zeros((2, 2, 32, 32), np.float32), np.array([0, 1]))
    assert str(build(model)) == before
    assert list(model.state_dict()) == names


def test_operations_in_another_order_are_not_fused() -> None:
    model = Sequential(
        ReLU(), Conv2d(1, 1, 3), AvgPool2d(2), BatchNorm2d(1), MaxPool2d(2), ReLU(), Flatten()
    )
    assert str(fuse(build(model))) == str(build(model))
    assert "runs as" not in str(model)


@pytest.mark.parametrize(
    ("after", "ops"),
    [
        (Residual(Sequential(ReLU(), Conv2d(1, 1, 1))), ["relu", "conv2d", "add"]),
        (Parallel(Conv2d(1, 1, 1), ReLU()), ["conv2d", "relu", "concat"]),
        (Parallel(ReLU(), Conv2d(1, 1, 1)), ["relu", "conv2d", "concat"]),
    ],
    ids=["residual", "relu last", "relu first"],
)
def test_a_value_that_two_nodes_read_is_kept(after: Residual | Parallel, ops: list[str]) -> None:
    """The convolution's result goes to the ReLU and to another node, so the two cannot be one."""
    model = Sequential(Conv2d(1, 1, 1), after, Flatten())
    assert [node.op for node in fuse(build(model))] == ["conv2d", *ops, "flatten"]


def test_only_the_sums_first_input_is_fused_with_it() -> None:
    """The batch norm of a shortcut stays; the body's, which comes first in the sum, does not."""
    body, shortcut = Sequential(BatchNorm2d(1)), Sequential(BatchNorm2d(1))
    graph = fuse(build(Residual(body, shortcut, activation=ReLU())))
    assert [(node.op, node.names) for node in graph] == [
        ("batch_norm2d", ("downsample.0",)),
        ("batch_norm2d_add_relu", ("0", "relu")),
    ]


def test_the_pass_looks_across_containers() -> None:
    """The ReLU after a block is fused with the block's sum, and one of the next container with a layer."""
    model = Sequential(
        Residual(Sequential(Conv2d(1, 1, 1))), ReLU(), Sequential(Conv2d(1, 1, 1)), Sequential(ReLU())
    )
    assert [node.op for node in fuse(build(model))] == ["conv2d", "add_relu", "conv2d_relu"]


def test_a_subclass_with_its_own_forward_is_not_fused() -> None:
    class Doubled(ReLU):
        def forward(self, x: np.ndarray, training: bool) -> tuple[np.ndarray, object]:
            y, saved = super().forward(x, training)
            return 2 * y, saved

    class Same(ReLU):
        """Nothing of its own but the name."""

    graph = fuse(build(Sequential(Conv2d(1, 1, 1), Doubled(), Conv2d(1, 1, 1), Same())))
    assert [node.op for node in graph] == ["conv2d", "Doubled", "conv2d_relu"]


def test_pruning_after_fusing_keeps_the_backward_pass_of_what_is_trained(backend: Backend) -> None:
    model = every_pattern()
    model.bind(backend)
    model.freeze("stem", "norm", "block")
    graph = prune(fuse(build(model)), need_dx=False)
    resting = [name for node in graph if not node.in_backward for name in node.names]
    assert resting[:4] == ["stem", "norm", "relu", "pool"]
    assert all(name.startswith("block") for name in resting[4:])
