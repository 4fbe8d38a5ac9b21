"""The architectures against torchvision's own, with its weights: names, shapes, logits, gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from minicnn import models
from minicnn.backends import Backend
from minicnn.graph import run
from minicnn.graph.fuse import runs_as
from minicnn.layers import BatchNorm2d, Dropout, ReLU, Sequential
from minicnn.testing import assert_close
from minicnn.torch_reference import from_torch, to_torch

torchvision = pytest.importorskip("torchvision", reason="needs torchvision: pip install minicnn[datasets]")

SIZES = {
    "vgg11": 32, "vgg11_bn": 40, "vgg13": 32, "vgg13_bn": 40, "vgg16": 32, "vgg16_bn": 40,
    "resnet18": 40, "resnet34": 40, "resnet50": 40, "googlenet": 72, "inception_v3": 171,
}  # fmt: skip
"""Image heights that leave batch norms something to average in the last layers."""
LEAST = {"vgg11": 32, "vgg16_bn": 32, "resnet50": 1, "googlenet": 15, "inception_v3": 75, "vgg_small": 8}
CLASSES, BATCH, HIDDEN = 5, 3, 24


def torchvision_model(name: str, *, auxiliary: bool = False) -> nn.Module:
    """torchvision's, with its own first values; VGG's dense layers narrow, to save time and memory."""
    if not name.startswith("vgg"):
        options = {} if name.startswith("resnet") else {"init_weights": True, "aux_logits": auxiliary}
        return torchvision.models.get_model(name, num_classes=CLASSES, **options)
    from torchvision.models import vgg

    depth = {"vgg11": "A", "vgg13": "B", "vgg16": "D"}[name.removesuffix("_bn")]
    with torch.device("meta"):
        module = vgg.VGG(nn.Sequential())
    module.features = vgg.make_layers(vgg.cfgs[depth], batch_norm=name.endswith("_bn"))
    widths = [512 * 7 * 7, HIDDEN, HIDDEN, CLASSES]
    for i in range(3):
        module.classifier[3 * i] = nn.Linear(widths[i], widths[i + 1])
    for layer in module.features:
        if isinstance(layer, nn.Conv2d):  # as VGG's constructor does
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module


def our_model(name: str, image_size: tuple[int, int]) -> Sequential:
    """Ours for `torchvision_model`, without a backend yet."""
    if name.startswith("vgg"):
        bn = name.endswith("_bn")
        return models.vgg.vgg(
            name.removesuffix("_bn"), 3, CLASSES, image_size, batch_norm=bn, hidden=HIDDEN
        )
    return getattr(models, name)(3, CLASSES, image_size)


@dataclass
class Reference:
    """torchvision's results in float64."""

    name: str
    image_size: tuple[int, int]
    x: np.ndarray
    upstream: np.ndarray
    state: dict[str, torch.Tensor]
    evaluated: np.ndarray
    trained: np.ndarray
    gradients: dict[str, np.ndarray]
    state_after: dict[str, torch.Tensor]

    def model(self, backend: Backend, dtype: str) -> Sequential:
        model = our_model(self.name, self.image_size)
        model.bind(backend, dtype=dtype)
        model.load_state_dict(self.state)
        for _, layer in model.named_layers():
            if isinstance(layer, Dropout):
                layer.p = 0.0
        return model


def make_reference(name: str, size: int) -> Reference:
    torch.manual_seed(len(name) + size)
    rng = np.random.default_rng(size)
    module = torchvision_model(name).double()
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    image_size = (size, size + 3)
    x = patches(rng, image_size)
    with torch.no_grad():  # running statistics of these images, with which evaluation says something
        for norm in norms:
            norm.momentum = 0.9
        for _ in range(2):
            module(torch.from_numpy(patches(rng, image_size)))
        for norm in norms:
            norm.momentum = 0.1
    state = {key: a.clone() for key, a in module.state_dict().items()}
    with torch.no_grad():
        evaluated = module.eval()(torch.from_numpy(x)).numpy()
    trained = module.train()(torch.from_numpy(x))
    upstream = rng.standard_normal(trained.shape)
    trained.backward(torch.from_numpy(upstream))
    gradients = {key: a.grad.numpy() for key, a in module.named_parameters()}
    return Reference(
        name, image_size, x, upstream, state, evaluated, trained.detach().numpy(), gradients,
        dict(module.state_dict()),
    )  # fmt: skip


def patches(rng: np.random.Generator, image_size: tuple[int, int]) -> np.ndarray:
    """Images that differ in the large, as photographs do; from noise alone, which averages out, deep
    batch norms would divide by little but rounding errors."""
    h, w = image_size
    coarse = rng.standard_normal((BATCH, 3, 5, 5))
    fine = rng.standard_normal((BATCH, 3, h, w))
    return np.kron(coarse, np.ones((-(-h // 5), -(-w // 5))))[..., :h, :w] + 0.1 * fine


def skip_if_emulated(backend: Backend) -> None:
    if "emulat" in backend.label:
        pytest.skip("the emulation is too slow for this: test_forward_of_small_images runs on it")


@pytest.mark.parametrize("name", SIZES)
def test_computes_what_torchvision_computes(backend: Backend, name: str) -> None:
    """Logits in evaluation and in training, gradients, and what training does to the statistics."""
    skip_if_emulated(backend)
    reference = make_reference(name, SIZES[name])
    assert np.ptp(reference.evaluated, axis=0).max() > 1e-2 * np.abs(reference.evaluated).max()
    check_logits(reference, backend, "float32", 1e-4)
    model, saved = check_logits(reference, backend, "float64", 1e-9)
    run.backward(model.graph(training=True), backend, backend.asarray(reference.upstream), saved)
    gradients = model.named_gradients()
    assert gradients.keys() == reference.gradients.keys()
    # A bias before a batch norm has no effect: its gradient is noise, and has no scale of its own.
    noise = 1e-14 * max(np.abs(a).max() for a in reference.gradients.values())
    for key, expected in reference.gradients.items():
        allowed = 1e-8 * np.abs(expected).max() + noise
        np.testing.assert_allclose(
            backend.to_numpy(gradients[key]), expected, rtol=0, atol=allowed, err_msg=key
        )
    for key, a in model.state_dict().items():
        np.testing.assert_allclose(a, reference.state_after[key], rtol=1e-9, atol=1e-12, err_msg=key)


def check_logits(
    reference: Reference, backend: Backend, dtype: str, allowed: float
) -> tuple[Sequential, list[object] | None]:
    """Compare; the model, and what its pass in training saved."""
    model = reference.model(backend, dtype)
    x = reference.x.astype(dtype)
    assert_close(model.predict(x), reference.evaluated, allowed)
    trained, saved = run.forward(model.graph(training=True), backend, backend.asarray(x), True)
    assert_close(backend.to_numpy(trained), reference.trained, allowed)
    return model, saved


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_forward_of_small_images(backend: Backend, name: str) -> None:
    reference = make_reference(name, 16)
    model = reference.model(backend, "float64")
    assert_close(model.predict(reference.x), reference.evaluated, 1e-9)


class NoDraws:
    """A generator whose draws take neither time nor memory."""

    def normal(self, _mean: float, _std: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(0.0, shape)

    uniform = normal


@pytest.mark.parametrize("name", SIZES)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    options = {} if name.startswith(("vgg", "resnet")) else {"init_weights": False}
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, **options).state_dict()
    model = getattr(models, name)(3, 1000, (224, 224))
    mine = {
        f"{prefix}.{key}": a.shape
        for prefix, layer in model.named_layers()
        for key, a in (layer.initial_params(lambda _: NoDraws()) | layer.initial_buffers()).items()
    }
    auxiliary = model.ignored_prefixes or ("no such",)
    assert list(mine.items()) == [
        (key, tuple(a.shape)) for key, a in theirs.items() if not key.startswith(auxiliary)
    ]


@pytest.mark.parametrize(
    ("name", "prefixes"), [("googlenet", {"aux1", "aux2"}), ("inception_v3", {"AuxLogits"})]
)
def test_auxiliary_heads_are_named_as_ignored(name: str, prefixes: set[str]) -> None:
    module = torchvision_model(name, auxiliary=True)
    model = our_model(name, (96, 96))
    model.bind("numpy")
    ignored = model.load_state_dict(module.state_dict())
    assert {key.split(".")[0] for key in ignored} == prefixes
    assert {*module.state_dict()} - {*model.state_dict()} == {*ignored}
    with pytest.raises(ValueError, match=r"it has auxiliary.weight, which the model has not"):
        model.load_state_dict({**module.state_dict(), "auxiliary.weight": np.zeros(1)})


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet50", "googlenet", "inception_v3"])
def test_there_and_back(name: str) -> None:
    """To torchvision by state dict, to plain torch.nn and back by to_torch and from_torch."""
    size = (SIZES[name], SIZES[name])
    model = our_model(name, size)
    model.bind("numpy", seed=3)
    state = {key: torch.from_numpy(a) for key, a in model.state_dict().items()}
    torchvision_model(name).load_state_dict(state)
    module = to_torch(model)
    assert list(module.state_dict()) == list(model.state_dict())
    back = from_torch(module, backend="numpy", input_shape=(3, *size))
    assert str(back) == str(model)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32))
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    assert_close(back.predict(x.numpy()), expected, 1e-4)


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_smallest_image(name: str, least: int) -> None:
    build = getattr(models, name)
    assert build(3, 4, (least, least + 1)).output_shape((3, least, least + 1)) == (4,)
    message = rf"^\[{name}\] image_size: expected at least {least}, got \({least - 1}, 80\)$"
    with pytest.raises(ValueError, match=message):
        build(3, 4, (least - 1, 80))


@pytest.mark.parametrize(
    ("name", "plain"), [("resnet18", 3), ("resnet50", 4), ("googlenet", 0), ("inception_v3", 0)]
)
def test_blocks_are_fused(name: str, plain: int) -> None:
    """Every batch norm and ReLU runs in a fused step, but for the batch norms of the shortcuts."""
    model = our_model(name, (107, 107))
    ops = runs_as(model.graph(training=True))
    layers = [name for name, layer in model.named_layers() if isinstance(layer, (BatchNorm2d, ReLU))]
    found = [ops.get(name, "") for name in layers]
    assert len([op for op in found if not op.startswith("batch_norm2d_")]) == plain
    assert "batch_norm2d_relu_max_pool2d" in found
