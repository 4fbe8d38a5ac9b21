"""The cases of the ONNX package, on every backend, except those that are listed below with the reason.

``pytorch-converted`` has models that PyTorch exported, with the outputs that PyTorch gave.  The cases of
convolution and pooling are single nodes, with the outputs of ONNX's own definition in NumPy.  Cases of one
dimension run as images of height 1; a softmax over the last axis runs on the rows of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases

from minicnn.backends import Backend
from minicnn.testing import assert_close, tolerance

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "pytorch-converted"

OUTSIDE = {
    "three dimensions": [
        "AvgPool3d", "AvgPool3d_stride", "AvgPool3d_stride1_pad0_gpu_input", "BatchNorm3d_eval",
        "BatchNorm3d_momentum_eval", "Conv3d", "Conv3d_dilated", "Conv3d_dilated_strided", "Conv3d_groups",
        "Conv3d_no_bias", "Conv3d_stride", "Conv3d_stride_padding", "MaxPool3d", "MaxPool3d_stride",
        "MaxPool3d_stride_padding",
    ],
    "no such activation": [
        "ELU", "GLU", "GLU_dim", "LeakyReLU", "LeakyReLU_with_negval", "PReLU_1d", "PReLU_1d_multiparam",
        "PReLU_2d", "PReLU_2d_multiparam", "PReLU_3d", "PReLU_3d_multiparam", "SELU", "Sigmoid", "Softmin",
        "Softplus", "Softsign", "Tanh",
    ],
    "the logarithm of a softmax is inside the loss only": [
        "LogSoftmax", "log_softmax_dim3", "log_softmax_lastdim",
    ],
    "padding is an argument of convolution and pooling, and zero": [
        "ConstantPad2d", "ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d",
    ],
    "no such layer": [
        "ConvTranspose2d", "ConvTranspose2d_no_bias", "Embedding", "Embedding_sparse", "PixelShuffle",
    ],
    "no such loss": ["PoissonNLLLLoss_no_reduce"],
}  # fmt: skip
"""Cases that the contract does not cover, by reason."""

NODES_OUTSIDE = {
    "three dimensions": [
        "averagepool_3d_default", "averagepool_3d_dilations_small",
        *(f"averagepool_3d_dilations_large_count_include_pad_is_{pad}_ceil_mode_is_{ceil}"
          for pad in (0, 1) for ceil in (True, False)),
        "maxpool_3d_default", "maxpool_3d_dilations", "maxpool_3d_dilations_use_ref_impl",
        "maxpool_3d_dilations_use_ref_impl_large",
    ],
    "padding of more than half the window, as torch refuses it too": [
        "averagepool_2d_pads", "averagepool_2d_pads_count_include_pad", "maxpool_2d_pads",
    ],
    "an average pool has no dilation, as in torch": ["averagepool_2d_dilations"],
    "no integers": ["maxpool_2d_uint8"],
}  # fmt: skip
"""Cases of single nodes that the contract does not cover, by reason."""

NODES = [
    "averagepool_1d_default", "averagepool_2d_ceil", "averagepool_2d_ceil_last_window_starts_on_pad",
    "averagepool_2d_default", "averagepool_2d_precomputed_pads",
    "averagepool_2d_precomputed_pads_count_include_pad", "averagepool_2d_precomputed_same_upper",
    "averagepool_2d_precomputed_strides", "averagepool_2d_same_lower", "averagepool_2d_same_upper",
    "averagepool_2d_strides", "basic_conv_with_padding", "basic_conv_without_padding",
    "conv_with_autopad_same", "conv_with_strides_and_asymmetric_padding", "conv_with_strides_no_padding",
    "conv_with_strides_padding", "maxpool_1d_default", "maxpool_2d_ceil",
    "maxpool_2d_ceil_output_size_reduce_by_one", "maxpool_2d_default", "maxpool_2d_dilations",
    "maxpool_2d_precomputed_pads", "maxpool_2d_precomputed_same_upper", "maxpool_2d_precomputed_strides",
    "maxpool_2d_same_lower", "maxpool_2d_same_upper", "maxpool_2d_strides",
    "maxpool_with_argmax_2d_precomputed_pads", "maxpool_with_argmax_2d_precomputed_strides",
]  # fmt: skip

OF_FOUR_DIGITS = ("averagepool_2d_ceil_last_window_starts_on_pad",)
"""Cases whose input and output ONNX wrote down with four digits."""

LEFT_OUT = {name for names in OUTSIDE.values() for name in names}
NAMES = sorted(path.name.removeprefix("test_") for path in FOLDER.glob("test_*"))
COVERED = [name for name in NAMES if name not in LEFT_OUT]
FAMILIES = ("Conv2d", "MaxPool2d", "AvgPool2d", "BatchNorm2d", "ReLU", "Linear", "Softmax")

Attributes = dict[str, Any]


# ---- ONNX's operators in terms of ours -----------------------------------------------------------------


def image(a: np.ndarray) -> np.ndarray:
    """(N,C,L) as images (N,C,1,L); images as they are."""
    return a[:, :, None] if a.ndim == 3 else a


def pair(values: list[int], extra: int) -> tuple[int, int]:
    return tuple(values) if len(values) == 2 else (extra, *values)


def window(attributes: Attributes, x: Any, kernel: tuple[int, int]) -> dict[str, Any]:
    """stride, padding and dilation, of one dimension or two."""
    found = {
        "stride": pair(attributes.get("strides", [1, 1]), 1),
        "dilation": pair(attributes.get("dilations", [1, 1]), 1),
    }
    pads = attributes.get("pads", [0, 0, 0, 0])
    half = len(pads) // 2
    sides = (*pair(pads[:half], 0), *pair(pads[half:], 0))
    if (rule := attributes.get("auto_pad", b"NOTSET")) != b"NOTSET":
        sides = automatic_padding(rule, tuple(x.shape[2:]), kernel, found["stride"], found["dilation"])
    return {**found, "padding": sides}


def automatic_padding(
    rule: bytes, size: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, ...]:  # fmt: skip
    """(top, left, bottom, right) for ceil(size / stride) outputs; the rule tells the larger half's side."""
    assert rule in (b"SAME_UPPER", b"SAME_LOWER")
    reach = [
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    smaller, larger = [n // 2 for n in reach], [-(-n // 2) for n in reach]
    return (*smaller, *larger) if rule == b"SAME_UPPER" else (*larger, *smaller)


def conv(b: Backend, attributes: Attributes, x: Any, weight: Any, bias: Any = None) -> tuple[Any, int]:
    attrs = window(attributes, x, tuple(weight.shape[2:]))
    y = b.conv2d_forward(x, weight, bias, **attrs, groups=attributes.get("group", 1))
    return y, int(np.prod(weight.shape[1:]))


def pool(attributes: Attributes, x: Any) -> dict[str, Any]:
    kernel = pair(attributes["kernel_shape"], 1)
    ceil = bool(attributes.get("ceil_mode", 0))
    return {"kernel_size": kernel, **window(attributes, x, kernel), "ceil_mode": ceil}


def max_pool(b: Backend, attributes: Attributes, x: Any) -> tuple[Any, int]:
    return b.max_pool2d_forward(x, **pool(attributes, x), need_argmax=False)[0], 0


def average_pool(b: Backend, attributes: Attributes, x: Any) -> tuple[Any, int]:
    attrs = pool(attributes, x)
    assert attrs.pop("dilation") == (1, 1)
    counted = bool(attributes.get("count_include_pad", 0))
    return b.avg_pool2d_forward(x, **attrs, count_include_pad=counted), int(np.prod(attrs["kernel_size"]))


def batch_norm(b: Backend, attributes: Attributes, x: Any, *parameters: Any) -> tuple[Any, int]:
    attrs = {"training": False, "momentum": 1 - attributes["momentum"], "eps": attributes["epsilon"]}
    return b.batch_norm2d_forward(x, *parameters, **attrs)[0], 1


def gemm(b: Backend, attributes: Attributes, x: Any, weight: Any, bias: Any) -> tuple[Any, int]:
    assert (attributes["alpha"], attributes["beta"], attributes["transB"]) == (1, 1, 1)
    return b.dense_forward(x, weight, bias), weight.shape[1]


def matmul(b: Backend, _: Attributes, x: Any, weight: Any) -> tuple[Any, int]:
    return b.dense_forward(x, b.asarray(b.to_numpy(weight).T), None), weight.shape[0]


def relu(b: Backend, _: Attributes, x: Any) -> tuple[Any, int]:
    return b.relu_forward(x), 0


def clip(b: Backend, _: Attributes, x: Any, least: Any, most: Any) -> tuple[Any, int]:
    assert (float(least), float(most)) == (0, 6)
    return b.relu6_forward(x), 0


def softmax(b: Backend, attributes: Attributes, x: Any) -> tuple[Any, int]:
    a = b.to_numpy(x)
    assert attributes["axis"] in (-1, a.ndim - 1)
    rows = b.softmax_forward(b.asarray(a.reshape(-1, a.shape[-1])))
    return b.asarray(b.to_numpy(rows).reshape(a.shape)), a.shape[-1]


COMPUTE: dict[str, Callable[..., tuple[Any, int]]] = {
    "Conv": conv, "MaxPool": max_pool, "AveragePool": average_pool, "BatchNormalization": batch_norm,
    "Gemm": gemm, "MatMul": matmul, "Relu": relu, "Clip": clip,
    "Softmax": softmax,
}  # fmt: skip
"""ONNX operator -> a function of a backend, attributes and inputs, to the output and its longest sum."""

MOVE: dict[str, Callable[[np.ndarray, Attributes], np.ndarray]] = {
    "Unsqueeze": lambda a, attributes: np.expand_dims(a, tuple(attributes["axes"])),
    "Squeeze": lambda a, attributes: np.squeeze(a, tuple(attributes["axes"])),
    "Transpose": lambda a, attributes: a.transpose(attributes["perm"]),
}
"""ONNX operators that only move values, done by NumPy."""


def run_model(
    backend: Backend, model: onnx.ModelProto, x: np.ndarray, *others: np.ndarray
) -> tuple[np.ndarray, int]:
    """The model's first output, computed by the backend, and the longest sum in it."""
    graph = model.graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    names = [i.name for i in graph.input if i.name not in values]
    values |= dict(zip(names, (x, *others), strict=True))
    longest = 0
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [values[name] for name in node.input]
        if node.op_type in MOVE:
            y = MOVE[node.op_type](*inputs, attributes)
        else:
            on_backend = [backend.asarray(image(a).astype(x.dtype)) for a in inputs]
            out, terms = COMPUTE[node.op_type](backend, attributes, *on_backend)
            y, longest = backend.to_numpy(out), max(longest, terms)
            y = y[:, :, 0] if inputs[0].ndim == 3 and node.op_type != "Softmax" else y
        values[node.output[0]] = y
    return values[graph.output[0].name], longest


# ---- the tests -----------------------------------------------------------------------------------------


def test_list_of_cases_left_out_is_exact() -> None:
    assert sum(map(len, OUTSIDE.values())) == len(LEFT_OUT)
    assert set(NAMES) >= LEFT_OUT
    assert len(COVERED) + len(LEFT_OUT) == len(NAMES)
    for name in LEFT_OUT:
        operators = {node.op_type for node in read(name)[0].graph.node}
        assert "3d" in name or not operators <= COMPUTE.keys() | MOVE.keys(), name
        assert not name.startswith(FAMILIES), name
    for family in FAMILIES:
        assert any(name.startswith(family) for name in COVERED), family


def read(name: str) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """A case's model, its input and the output that PyTorch gave."""
    folder = FOLDER / f"test_{name}"
    data = [f"test_data_set_0/{part}_0.pb" for part in ("input", "output")]
    arrays = [numpy_helper.to_array(onnx.load_tensor(folder / file)) for file in data]
    return onnx.load(folder / "model.onnx"), arrays[0], arrays[1]


@cache
def single_nodes() -> dict[str, Any]:
    """ONNX's cases of convolution and pooling, by name.  To import them makes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_cases, "_NodeTestCases", found := [])
        for module in ("conv", "maxpool", "averagepool"):
            import_module(f"{node_cases.__name__}.{module}")
    return {case.name.removeprefix("test_"): case for case in found}


def test_list_of_nodes_is_exact() -> None:
    left_out = [name for names in NODES_OUTSIDE.values() for name in names]
    assert sorted([*NODES, *left_out]) == sorted(single_nodes())


@pytest.mark.parametrize("name", NODES)
def test_equals_what_the_definition_of_the_node_gives(backend: Backend, name: str) -> None:
    case = single_nodes()[name]
    ((inputs, (expected, *_)),) = case.data_sets
    y, terms = run_model(backend, case.model, *inputs)
    if name in OF_FOUR_DIGITS:
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    else:
        assert_close(y, expected, tolerance(np.float32, terms))


@pytest.mark.parametrize("name", COVERED)
def test_equals_what_pytorch_exported(backend: Backend, name: str, dtype: np.dtype) -> None:
    model, x, expected = read(name)
    y, terms = run_model(backend, model, x.astype(dtype))
    assert y.dtype == dtype
    # the expected output was computed in float32, so that a result in float64 is no nearer to it
    assert_close(y, expected, tolerance(np.float32, terms))
