"""torch.ops.minicnn.*: the backends' own bits, torch's own checks, and what is refused."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LISTED
from torch import nn
from torch._subclasses.fake_utils import CrossRefFakeMode
from torch_cases import CASES, FIRST_OF_EACH_OP, arguments, as_tensor, learns, operation

from minicnn.backends import available_backends, get_backend
from minicnn.testing.bfloat16 import WITHOUT
from minicnn.testing.cases import Case
from minicnn.testing.checks import drawn
from minicnn.testing.oracle import run_backend
from minicnn.testing.tolerance import assert_equal
from minicnn.torch import call

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

ONES = [case for case in FIRST_OF_EACH_OP.values() if "exact" not in case.id]
SHORT = [case for case in ONES if learns(case)]
OP = torch.ops.minicnn


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_case_has_the_bits_of_the_backend(dtype: str) -> None:
    """Through the dispatcher and past it; the backend itself is compared with torch elsewhere."""
    for case in CASES:
        problem = drawn(case, dtype)
        expected = run_backend(get_backend("cpp"), problem)
        dy = torch.from_numpy(problem.dy.copy())
        for way in (operation(case), lambda *args, name=case.op: call(name, *args)):
            args, learnt = arguments(problem)
            if case.op == "concat":
                args = args if way is operation(case) else args[0]
            y = way(*args)
            first, *_ = y if isinstance(y, tuple) else (y,)
            assert_equal(first.detach().numpy(), next(iter(expected.outputs.values())), f"{case}: y")
            if not learnt:
                continue
            gradients = torch.autograd.grad(first, list(learnt.values()), dy)
            for name, gradient in zip(learnt, gradients, strict=True):
                assert_equal(gradient.numpy(), expected.gradients[name], f"{case}: d{name}")


def test_a_pooled_zero_passes_no_gradient_where_a_window_has_many_cells() -> None:
    """A window of more than 255 cells is pooled by an operation of its own, which knows of no ReLU."""
    x, weight = torch.randn(1, 1, 20, 20, requires_grad=True), torch.randn(2, 1, 1, 1)
    y = OP.conv2d_relu_max_pool2d(
        x, weight, torch.full((2,), -100.0), kernel_size=[17, 16], pool_stride=[1, 1]
    )
    assert y.max() == 0
    y.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own
@pytest.mark.parametrize("case", ONES, ids=str)
def test_opcheck(case: Case) -> None:
    args, _ = arguments(drawn(case, "float32"))
    found = torch.library.opcheck(operation(case), args)
    assert set(found.values()) == {"SUCCESS"}
    assert len(found) == 4


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own
def test_fake_kernels_tell_the_dtypes_of_bfloat16() -> None:
    """Beside bfloat16, weights, statistics and their gradients are float32."""
    for case in SHORT:
        if case.op in WITHOUT:
            continue
        problem = drawn(case, "bfloat16")
        args, learnt = arguments(problem)
        with CrossRefFakeMode():  # compares what every kernel gives with what its fake one says
            y = operation(case)(*args)
            torch.autograd.grad(y, list(learnt.values()), as_tensor(problem.dy))
        assert y.dtype == torch.bfloat16


def test_call_takes_tensors_without_values() -> None:
    x, weight = torch.empty(2, 3, 6, 6, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    y = call("conv2d", x, weight, None, (1, 1), (0, 0), (1, 1), 1)
    assert (y.shape, y.device.type) == ((2, 4, 4, 4), "meta")


@pytest.mark.parametrize("way", ["dispatcher", "past it"])
@pytest.mark.parametrize("name", ["labels", "class_weight"])
def test_a_gradient_that_an_operation_has_not_is_refused(way: str, name: str) -> None:
    logits = torch.randn(2, 3)
    given = {"labels": torch.softmax(logits, 1), "class_weight": torch.ones(3)}
    given[name].requires_grad_()
    loss = OP.softmax_cross_entropy if way == "dispatcher" else partial(call, "softmax_cross_entropy")
    message = (
        rf"^\[softmax_cross_entropy\] {name}: expected a tensor without gradient, got requires_grad=True$"
    )
    with pytest.raises(ValueError, match=message):
        loss(logits, *given.values(), 0.0, -100, "mean")


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_gradcheck(case: Case) -> None:
    args, learnt = arguments(drawn(case, "float64"))
    places = {id(tensor): name for name, tensor in learnt.items()}

    def of_learnt(*tensors: torch.Tensor) -> torch.Tensor:
        by_name = dict(zip(learnt, tensors, strict=True))

        def put(value: Any) -> Any:
            return (
                [put(v) for v in value]
                if isinstance(value, list)
                else by_name.get(places.get(id(value)), value)
            )

        return operation(case)(*[put(value) for value in args])

    assert torch.autograd.gradcheck(of_learnt, tuple(learnt.values()), fast_mode=True)


def images(*shape: int, **options: Any) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), **options)


def of_every_op(x: torch.Tensor, w: torch.Tensor, norm: nn.BatchNorm2d, fc: nn.Linear) -> torch.Tensor:
    """A net of nearly all operations; x (N,4,8,8), w (4,4,3,3)."""
    state = (norm.weight, norm.bias, norm.running_mean, norm.running_var, True, 0.1, 1e-5)
    z = OP.conv2d_relu(x, w, None, padding=[1, 1])
    z = OP.batch_norm2d_add_relu(z, x, *state)
    z = OP.concat([OP.relu(OP.conv2d(z, w, None, padding=[1, 1])), OP.batch_norm2d_relu(z, *state)])
    z = OP.add_relu(z, OP.batch_norm2d(OP.add(z, z)[:, :4], *state).repeat(1, 2, 1, 1))
    z = OP.conv2d_max_pool2d(z[:, 4:], w, None, padding=[1, 1])
    z = OP.batch_norm2d_relu_max_pool2d(OP.conv2d_relu_max_pool2d(z.repeat(1, 1, 2, 2), w), *state)
    z = OP.avg_pool2d(OP.max_pool2d(z.repeat(1, 1, 4, 4)))
    z = OP.flatten(OP.adaptive_avg_pool2d(z))
    keep = torch.ones(z.shape, dtype=torch.bool)
    z = OP.softmax(OP.dense_relu(OP.dropout(z, keep, 0.5), fc.weight, fc.bias))
    return OP.dense(z, fc.weight, fc.bias)


def results_of(function: Any) -> list[np.ndarray]:
    """The result, the gradients and the running statistics of a function like `of_every_op`."""
    torch.manual_seed(0)
    norm, fc = nn.BatchNorm2d(4), nn.Linear(4, 4)
    x, w = images(3, 4, 8, 8).requires_grad_(), images(4, 4, 3, 3).requires_grad_()
    y = function(x, w, norm, fc)
    learnt = [x, w, *norm.parameters(), *fc.parameters()]
    found = [y, *torch.autograd.grad(y.square().sum(), learnt), norm.running_mean, norm.running_var]
    return [t.detach().numpy() for t in found]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*non-leaf.*:UserWarning"
)
def test_compile_breaks_no_graph_and_changes_no_result() -> None:
    """opcheck misses a wrong memory order of a result, which Inductor notices."""
    compiled = torch.compile(of_every_op, fullgraph=True)
    for actual, expected in zip(results_of(compiled), results_of(of_every_op), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def conv_arguments(**options: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
    return images(2, 4, 6, 7, **options), images(5, 4, 3, 3, **options), None


def test_the_library_refuses_what_autograd_would_lose() -> None:
    """It gave a result without a gradient before, and said nothing."""
    x, w, _ = conv_arguments()
    b = get_backend("cpp")
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    message = (
        "[conv2d] weight: expected a tensor without gradient (use minicnn.torch or torch.no_grad(): this "
        "operation is not recorded by autograd), got requires_grad=True"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        b.conv2d_forward(x, w.requires_grad_(), None, **attrs)
    with torch.no_grad():
        expected = b.conv2d_forward(x, w, None, **attrs)
    assert torch.equal(OP.conv2d(x, w), expected)
    with pytest.raises(ValueError, match="not recorded by autograd"):
        b.sgd_step([w], [w.detach()], [w.detach()], lr=1, momentum=0, weight_decay=0, nesterov=False)


@pytest.mark.parametrize("way", ["dispatcher", "past it"])
def test_what_torch_refuses_is_refused(way: str) -> None:
    conv = OP.conv2d_relu if way == "dispatcher" else lambda *args: call("conv2d_relu", *args)
    attrs = ([1, 1], [0, 0], [1, 1], 1)
    x, w, _ = conv_arguments(requires_grad=True)
    y = conv(x, w, None, *attrs)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
    y = conv(x, w, None, *attrs)
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match=r"\[minicnn::conv2d_relu\w*\] torch.vmap is not supported"):
        torch.vmap(lambda image: conv(image[None], w.detach(), None, *attrs))(x.detach())
    with pytest.raises(ValueError, match=r"^\[conv2d\] weight: expected C=4, got C=5"):
        conv(images(1, 4, 6, 6), images(2, 5, 3, 3), None, *attrs)


def test_modes_and_memory_orders() -> None:
    x, w, _ = conv_arguments()
    expected = torch.relu(nn.functional.conv2d(x, w))
    variants = {
        "contiguous": x,
        "channels-last": x.contiguous(memory_format=torch.channels_last),
        "strided": x.repeat_interleave(2, 3)[..., ::2],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
    }
    for name, variant in variants.items():
        learnt = variant.detach().clone().requires_grad_()
        y = OP.conv2d_relu(learnt, w)
        torch.testing.assert_close(y, expected, msg=name)
        assert y.is_contiguous(memory_format=torch.channels_last)
        y.sum().backward()
        assert learnt.grad is not None
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            y = OP.conv2d_relu(x, w.requires_grad_())
            assert not y.requires_grad
            torch.testing.assert_close(y, expected)
    assert OP.conv2d_relu(x, w).requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export_keeps_the_operations() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return OP.flatten(OP.conv2d_relu_max_pool2d(x, w))

    x, w, _ = conv_arguments()
    exported = torch.export.export(Net(), (x, w))
    assert "minicnn.conv2d_relu_max_pool2d.default" in exported.graph_module.code
    assert torch.equal(exported.module()(x, w), Net()(x, w))
