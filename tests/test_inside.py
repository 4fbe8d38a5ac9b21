"""Looking inside a network: gradients against torch, and each method where its answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import BACKENDS

from minicnn import data, models
from minicnn.inside import Trace, features, grad_cam, nearest, occlusion
from minicnn.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)


def pooled_net(backend: str = "numpy", seed: int = 0) -> Sequential:
    """Two convolutions, a global mean and one dense layer."""
    return Sequential(
        {
            "conv1": Conv2d(1, 4, 3, padding=1), "bn": BatchNorm2d(4), "relu1": ReLU(),
            "pool": MaxPool2d(2), "conv2": Conv2d(4, 6, 3, padding=1), "relu2": ReLU(),
            "drop": Dropout(0.5), "mean": AdaptiveAvgPool2d(1), "flatten": Flatten(), "fc": Dense(6, 3),
        },
        backend=backend, seed=seed, dtype="float64",
    )  # fmt: skip


def images(count: int, side: int = 8, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, channels, side, side))


@pytest.mark.parametrize("backend", BACKENDS)
def test_grad_cam_is_the_class_activation_map_of_a_net_with_a_global_mean(backend: str) -> None:
    """Zhou et al., 2016: there the map is the dense layer's weighted sum of the last maps."""
    net, x, classes = pooled_net(backend), images(3), np.array([0, 2, 1])
    net.load_state_dict(net.state_dict() | {"bn.running_mean": np.array([0.3, -0.2, 0.1, 0.0])})
    trace = Trace(net, x)
    maps = trace.value(trace.named_values()["relu2"])
    weights = net.state_dict()["fc.weight"][classes] / 16
    expected = np.maximum(np.einsum("nk,nkhw->nhw", weights, maps), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(grad_cam(net, x, classes), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trace.logits, net.predict(x), rtol=1e-9, atol=1e-12)


def test_gradients_to_every_value_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    from minicnn.torch_reference import to_torch

    block = {"a": Conv2d(3, 3, 3, padding=1), "bn": BatchNorm2d(3), "relu": ReLU()}
    net = Sequential(
        {"stem": Conv2d(1, 3, 3), "block": Residual(Sequential(block)), "end": ReLU(), "drop": Dropout(0.5),
         "flatten": Flatten(), "fc": Dense(48, 4)},
        backend="numpy", seed=3, dtype="float64",
    )  # fmt: skip
    x, dy = images(2, 6), np.random.default_rng(2).normal(size=(2, 4))
    trace = Trace(net, x)
    gradients = trace.gradients(dy)
    module = to_torch(net).double().eval()
    kept: dict[str, object] = {}
    for name, child in module.named_modules():
        child.register_forward_hook(lambda _m, _i, out, name=name: kept.__setitem__(name, out))
    inputs = torch.tensor(x, requires_grad=True)
    logits = module(inputs)
    names = [name for name, number in trace.named_values().items() if name in kept and number in gradients]
    assert {"stem", "end", "fc"} < set(names)
    wanted = torch.autograd.grad(logits, [inputs, *(kept[n] for n in names)], torch.tensor(dy))
    np.testing.assert_allclose(gradients[0], wanted[0].numpy(), rtol=1e-8, atol=1e-10)
    for name, gradient in zip(names, wanted[1:], strict=True):
        np.testing.assert_allclose(
            gradients[trace.named_values()[name]], gradient.numpy(), rtol=1e-8, atol=1e-10, err_msg=name
        )


def test_a_trace_changes_nothing_in_the_model() -> None:
    net = pooled_net()
    net.freeze("conv1")
    net.children["fc"].grads = {"weight": np.ones(3)}
    before, generator = net.state_dict(), net.generator_state()
    grad_cam(net, images(2), np.array([0, 1]))
    after = net.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    assert net.generator_state() == generator
    assert not net.children["conv1"].requires_grad
    assert net.children["fc"].requires_grad
    assert net.children["fc"].grads["weight"].sum() == 3


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("lenet5", 28, (10, 10)),
        ("simple_cnn", 28, (14, 14)),
        ("resnet20", 32, (8, 8)),
        ("googlenet", 64, (2, 2)),
    ],
)
def test_the_last_maps_are_those_before_what_pools_them(
    name: str, size: int, expected: tuple[int, int]
) -> None:
    net = models.create(name, in_channels=1, num_classes=3, image_size=size, backend="numpy", seed=0)
    assert grad_cam(net, images(1, size), np.array([1])).shape == (1, *expected)


def test_grad_cam_of_another_layer_and_what_is_refused() -> None:
    net, x = pooled_net(), images(1)
    assert grad_cam(net, x, np.array([0]), "conv1").shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"\[grad_cam\] layer: expected one of conv1, .*, got fc"):
        grad_cam(net, x, np.array([0]), "fc")
    with pytest.raises(
        ValueError, match=r"\[grad_cam\] classes: expected 1 class numbers from 0 to 2, got"
    ):
        grad_cam(net, x, np.array([3]))
    plain = Sequential(Flatten(), Dense(64, 3), backend="numpy")
    with pytest.raises(ValueError, match="expected a network with a convolution, got none"):
        grad_cam(plain, x, np.array([0]))


def test_occlusion_finds_the_only_pixel_that_counts() -> None:
    def probabilities(x: np.ndarray) -> np.ndarray:
        first = np.where(x[:, 0, 2, 5] > 0.5, 0.9, 0.4)
        return np.stack([first, 1 - first], axis=1)

    x = np.ones((1, 8, 9))
    found = occlusion(probabilities, x, 0, side=1, stride=1)
    expected = np.zeros((8, 9))
    expected[2, 5] = 0.5
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (x == 1).all()
    covered = occlusion(probabilities, x, 0, side=3, stride=2)
    assert covered[2, 5] == pytest.approx(0.5), "every square over it makes the probability fall"
    assert covered[7, 0] == 0
    np.testing.assert_allclose(occlusion(probabilities, x, 1, side=3, stride=2), -covered, atol=1e-12)
    for side, stride in ((0, 1), (9, 1), (3, 4)):
        with pytest.raises(ValueError, match=r"\[occlusion\] (side|stride): expected from 1 to"):
            occlusion(probabilities, x, 0, side=side, stride=stride)


def test_features_are_what_goes_into_the_last_layer() -> None:
    net = pooled_net()
    pixels = np.random.default_rng(0).integers(0, 256, (7, 1, 8, 8), np.uint8)
    found = features(
        net, data.Images(pixels, np.zeros(7, np.int64)), np.array([0.5]), np.array([0.3]), batch_size=3
    )
    assert found.shape == (7, 6)
    state, x = net.state_dict(), data.normalize(pixels, [0.5], [0.3], "float64")
    np.testing.assert_allclose(
        found @ state["fc.weight"].T + state["fc.bias"], net.predict(x), rtol=1e-9, atol=1e-12
    )
    assert nearest(found, found[4], 1) == [(4, 0.0)]


def test_the_nearest_come_first() -> None:
    known = np.zeros((5, 5), np.float32)
    known[:, 1] = [4, 2, 3, -2, 9]
    assert nearest(known, np.zeros(5), 4) == [(1, 2.0), (3, 2.0), (2, 3.0), (0, 4.0)]
    assert len(nearest(known, np.zeros(5), 9)) == 5
    with pytest.raises(ValueError, match=r"\[nearest\] one: expected a vector of \(5,\), got \(4,\)"):
        nearest(known, known[0, :4], 1)
