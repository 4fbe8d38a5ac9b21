"""ONNX models made of graphs: ONNX Runtime and OpenVINO compute what minicnn predicts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from every_model import make

from minicnn import Sequential, calibration, layers, metrics
from minicnn.contract import Contract
from minicnn.data.resize import RESIZE, resize_images
from minicnn.graph.onnx import OPSET, describe, to_onnx
from minicnn.graph.onnx_operations import TRANSLATIONS
from minicnn.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    Parallel,
    ReLU,
    ReLU6,
    Residual,
    Softmax,
)
from minicnn.layers.layer import Layer
from minicnn.layers.network import Network, Wire
from minicnn.ops.make_batch import normalized

Run = Callable[[onnx.ModelProto, np.ndarray], list[np.ndarray]]


def with_onnxruntime(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": x}))


def with_openvino(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    openvino = pytest.importorskip("openvino", reason="openvino is one of the optional peers")
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", options)
    return [np.array(y) for y in compiled([x]).values()]


def agree(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-6)


def untrained(*layers: Layer | dict[str, Layer], shape: tuple[int, int, int]) -> Sequential:
    """A model on numpy whose batch norms are as training would leave them."""
    model = Sequential(*layers, backend="numpy", seed=3, input_shape=shape)
    rng = np.random.default_rng(1)
    state = model.state_dict()
    for name, a in state.items():
        if name.endswith(("running_var", "bias", "running_mean")):
            state[name] = rng.uniform(0.5, 2.0, a.shape).astype(np.float32)
    model.load_state_dict(state)
    return model


def test_every_layer_has_a_translation() -> None:
    kinds = [getattr(layers, name) for name in layers.__all__]
    assert {kind.op for kind in kinds if kind.op} <= TRANSLATIONS.keys()


MEETINGS = {"add", "concat", "concat_2", "concat_3", "narrow"}
"""The last parts of the names of nodes that are no layers."""


@pytest.mark.parametrize(
    "name", ["lenet5", "fast_resnet", "vgg_small", "resnet20", "googlenet", "inception_v3"]
)
def test_a_model_gives_what_it_predicts(name: str) -> None:
    model, x, _ = make(name, np.random.default_rng(0))
    expected = model.predict(x)
    for fold in (True, False):
        proto = to_onnx(model, x.shape[1:], fold=fold)
        onnx.checker.check_model(proto, full_check=True)
        norms = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
        assert fold or len(norms) == sum(isinstance(one, BatchNorm2d) for _, one in model.named_layers())
        (logits,) = with_onnxruntime(proto, x.astype(np.float32))
        agree(logits, expected)
        names = {full for full, layer in model.named_layers() if layer.op}
        others = {node.name for node in proto.graph.node} - names
        assert {re.sub(r"^.*\.", "", other) for other in others} <= MEETINGS
        parameters = {constant.name for constant in proto.graph.initializer}
        made = {name for name in parameters if name.endswith((".bias", ".rows", ".columns"))}
        assert parameters - made <= model.state_dict().keys()


def ceil(kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> MaxPool2d:
    return MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True)


LAYERS: dict[str, tuple[Layer, ...]] = {
    "conv2d-uneven-padding": (Conv2d(2, 4, (4, 3), padding="same", dilation=(1, 2), groups=2, bias=False),),
    "conv2d-four-sides": (Conv2d(2, 3, 3, stride=(2, 3), padding=(0, 1, 2, 3)),),
    "batch_norm2d-alone": (BatchNorm2d(2, eps=1e-3), ReLU(), BatchNorm2d(2, affine=False)),
    "max_pool2d-ceil": (ceil(3, 2, 1),),
    "max_pool2d-four-sides": (MaxPool2d(3, 2, padding=(1, 0, 0, 1)),),
    "max_pool2d-ceil-dilated": (ceil(2, 5, 1, 4),),
    "avg_pool2d-ceil": (AvgPool2d(3, 2, 1, ceil_mode=True),),
    "avg_pool2d-ceil-image-alone": (AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),),
    "avg_pool2d-four-sides": (AvgPool2d(4, 3, (2, 1, 0, 2)),),
    "adaptive_avg_pool2d-even": (AdaptiveAvgPool2d((4, 5)),),
    "adaptive_avg_pool2d-uneven": (AdaptiveAvgPool2d((3, 7)),),
    "adaptive_avg_pool2d-larger": (AdaptiveAvgPool2d((11, 12)),),
    "dropout-at-the-end": (ReLU(), Dropout(0.5)),
    "relu6": (ReLU6(),),
    "nothing": (Dropout(0.5),),
    "softmax": (Flatten(), Dense(160, 3, bias=False), Softmax()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_it_predicts(name: str) -> None:
    model = untrained(*LAYERS[name], shape=(2, 8, 10))
    x = np.random.default_rng(2).standard_normal((3, 2, 8, 10)).astype(np.float32) * 4 - 1
    agree(with_onnxruntime(to_onnx(model), x)[0], model.predict(x, fuse=False))


@pytest.mark.parametrize("name", [name for name in LAYERS if "ceil" in name])
def test_openvino_agrees_on_windows_that_hang_over_the_edge(name: str) -> None:
    model = untrained(*LAYERS[name], shape=(2, 8, 10))
    x = np.random.default_rng(2).standard_normal((3, 2, 8, 10)).astype(np.float32) - 1
    agree(with_openvino(to_onnx(model), x)[0], model.predict(x, fuse=False))


def test_containers_and_layers_at_several_places() -> None:
    shared = Conv2d(2, 2, 3, padding=1)
    wires = [Wire("a", (0,)), Wire("b", (1,)), Wire("+", (2, 1)), Wire("cat", (3, 0)), Wire("a", (0,))]
    network = Network({"a": shared, "b": shared}, [*wires, Wire("+", (5, 2))])
    branches = Parallel({"left": Sequential(ReLU(), Conv2d(2, 3, 1)), "right": MaxPool2d(3, 1, 1)})
    body = Sequential({"conv": Conv2d(5, 5, 3, padding=1), "bn": BatchNorm2d(5)})
    block = Residual(body, Sequential(Conv2d(5, 5, 1)), activation=ReLU())
    model = untrained({"net": network, "branches": branches, "block": block}, shape=(2, 6, 6))
    proto = to_onnx(model)
    assert [node.name for node in proto.graph.node] == [
        "net.a", "net.b", "net.add", "net.concat", "net.a_2", "net.add_2", "branches.left.0",
        "branches.left.1", "branches.right", "branches.concat", "block.downsample.0", "block.conv",
        "block.add", "block.relu",
    ]  # fmt: skip
    assert proto.graph.node[11].doc_string == "block.conv and block.bn"
    weights = [one.name for one in proto.graph.initializer if one.name.startswith("net.")]
    assert weights == ["net.a.weight", "net.a.bias"], "a layer at several places is there once"
    x = np.random.default_rng(2).standard_normal((3, 2, 6, 6)).astype(np.float32)
    agree(with_onnxruntime(proto, x)[0], model.predict(x))


class Twice(Layer):
    def forward(self, x: Any, training: bool) -> tuple[Any, Any]:  # noqa: ARG002
        return x + x, None


class OwnReLU(ReLU):
    def forward(self, x: Any, training: bool) -> tuple[Any, Any]:  # noqa: ARG002
        return x + x, None


@pytest.mark.parametrize("layer", [Twice(), OwnReLU(), type("relu", (Twice,), {})()])
def test_a_layer_of_ones_own_is_refused_by_name(layer: Layer) -> None:
    model = Sequential({"head": Sequential({"own": layer})}, backend="numpy", input_shape=(1, 4, 4))
    with pytest.raises(ValueError, match=r"^\[export\] layer head\.own: expected one of minicnn's, got "):
        to_onnx(model)


def classifier() -> tuple[Sequential, Contract]:
    shape = (3, 6, 8)
    model = untrained(Conv2d(3, 4, 3), BatchNorm2d(4), ReLU(), Flatten(), Dense(96, 3), shape=shape)
    return model, Contract(shape, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], ["a", "é", "c"], 1.7, "crop")


def test_a_contract_puts_all_that_a_prediction_needs_into_the_model() -> None:
    model, contract = classifier()
    proto = to_onnx(model, contract=contract)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", OPSET)]
    assert proto.producer_name == "minicnn"
    told = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert told["class_names"] == ["a", "é", "c"]
    assert told["contract"]["input"]["colours"] == "RGB"
    assert (told["contract"]["resize"]["how"], told["contract"]["temperature"]) == ("crop", 1.7)
    describe(proto, verification={"images": 3})
    assert {entry.key for entry in proto.metadata_props} == {"class_names", "contract", "verification"}
    for count in (1, 5):
        x = np.random.default_rng(2).integers(0, 256, (count, 3, 6, 8)).astype(np.uint8)
        expected = model.predict(normalized(x, contract.mean, contract.std, np.float32))
        probabilities, logits = with_onnxruntime(proto, x)
        agree(logits, expected)
        agree(probabilities, metrics.softmax(calibration.scaled(expected, 1.7)))


@pytest.mark.parametrize(
    ("way", "run"), [*((way, with_onnxruntime) for way in RESIZE), ("pad", with_openvino)]
)
def test_images_of_any_size_get_theirs_in_the_model(way: str, run: Run) -> None:
    """A model that gives its pixels back shows them: within one level, as Pillow rounds fixed point."""
    size = (6, 8)
    contract = Contract((1, *size), [0.0], [1 / 255], [str(number) for number in range(48)], resize=way)
    proto = to_onnx(Sequential(Flatten(), backend="numpy"), contract=contract, any_size=True)
    for height, width in [(6, 8), (13, 17), (40, 12), (20, 15), (28, 7), (1, 1)]:
        x = np.random.default_rng(height).integers(0, 256, (2, 1, height, width)).astype(np.uint8)
        pixels = run(proto, x)[1].reshape(2, 1, *size)
        difference = np.abs(np.round(pixels) - resize_images(x, size, way=way))
        assert difference.max() <= (0 if (height, width) == size else 1)


def test_what_does_not_fit_is_refused() -> None:
    model, contract = classifier()
    with pytest.raises(ValueError, match=r"\[export\] any_size: expected a contract"):
        to_onnx(model, any_size=True)
    model.input_shape = None
    with pytest.raises(ValueError, match=r"\[export\] input_shape: expected \(C, H, W\), got None"):
        to_onnx(model)
    with pytest.raises(ValueError, match=r"input_shape: expected \(C=3, H, W\), got \(1, 6, 8\)"):
        to_onnx(model, (1, 6, 8))
    fewer = Contract(contract.image_shape, contract.mean, contract.std, ["a", "b"])
    with pytest.raises(ValueError, match=r"\[export\] model: expected an output of 2 numbers, one a class"):
        to_onnx(model, contract=fewer)
