"""Bad input to the cpp backend gives an error or a result, never a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import LISTED

from minicnn.backends import Backend, Conv, Pool, available_backends, get_backend

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

import torch  # noqa: E402 - not there where the file is skipped

CONV, POOL = Conv((1, 1), (1, 1), (1, 1), 1), Pool((2, 2), (2, 2), (0, 0), (1, 1), False)


@pytest.fixture(scope="module")
def cpp() -> Backend:
    return get_backend("cpp")


X, W, B, M = torch.ones(2, 3, 6, 6), torch.ones(4, 3, 3, 3), torch.ones(4), torch.ones(5, 7)
G = torch.ones(2, 4, 6, 6)
NEED = {"need_dx": True, "need_dw": True, "need_db": True}
NORM = {"training": True, "momentum": 0.1, "eps": 1e-5}
WINDOW = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
BYTES, SHAPE = torch.zeros(2, 3, 3, 3, dtype=torch.uint8), (2, 3, 6, 6)
WINNERS = ("fused", torch.zeros(2, 4, 3, 3, dtype=torch.uint8))
COMPOSED = ("composed", torch.zeros(2, 4, 3, 3, dtype=torch.uint8), torch.ones(2, 4, 3, 3))
POOLED = torch.ones(2, 4, 3, 3)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv2d_forward", (X, W, B), CONV._asdict()),
    ("conv2d_backward", (G, X, W), {**CONV._asdict(), **NEED}),
    ("conv2d_relu_forward", (X, W, B), {"conv": CONV, "need_saved": True}),
    ("conv2d_relu_backward", (G, X, W, G), {"conv": CONV, **NEED}),
    ("conv2d_max_pool2d_forward", (X, W, B), {"conv": CONV, "pool": POOL, "need_saved": True}),
    ("conv2d_relu_max_pool2d_backward", (POOLED, X, W, WINNERS), {"conv": CONV, "pool": POOL, **NEED}),
    ("conv2d_relu_max_pool2d_backward", (POOLED, X, W, COMPOSED), {"conv": CONV, "pool": POOL, **NEED}),
    ("dense_relu_forward", (M, torch.ones(6, 7), None), {"need_saved": True}),
    ("max_pool2d_forward", (X,), {**POOL._asdict(), "need_argmax": True}),
    ("max_pool2d_backward", (torch.ones(2, 3, 3, 3), BYTES), {"input_shape": SHAPE, **POOL._asdict()}),
    ("avg_pool2d_forward", (X,), {**WINDOW, "count_include_pad": True}),
    ("avg_pool2d_backward", (torch.ones(2, 3, 3, 3),),
     {"input_shape": SHAPE, **WINDOW, "count_include_pad": True}),
    ("adaptive_avg_pool2d_backward", (X,), {"input_shape": (2, 3, 9, 9)}),
    ("batch_norm2d_forward", (X, B[:3], B[:3], None, None), NORM),
    ("batch_norm2d_backward", (X, X, B[:3], B[:3], B[:3]), {"training": True, **NEED}),
    ("batch_norm2d_add_relu_forward", (X, X, B[:3], B[:3], None, None), NORM),
    ("batch_norm2d_add_relu_backward", (X, X, B[:3], (X, B[:3], B[:3])), {"training": True, **NEED}),
    ("batch_norm2d_relu_max_pool2d_backward",
     (torch.ones(2, 3, 3, 3), X, B[:3], (torch.ones(2, 3, 3, 3), BYTES, B[:3], B[:3])),
     {"training": True, "pool": POOL, **NEED}),
    ("relu_backward", (X, X), {}),
    ("dropout_forward", (X, X > 0), {"p": 0.5}),
    ("softmax_cross_entropy_forward", (M, torch.zeros(5, dtype=torch.int64)),
     {"label_smoothing": 0.0, "class_weight": None}),
    ("fold_batch_norm2d", (W, None, B, B, B, B), {"eps": 1e-5}),
    ("add_relu_forward", (M, M), {"need_saved": True}),
    ("concat_forward", ([X, X],), {}),
    ("concat_backward", (X,), {"sizes": (1, 2)}),
    ("flatten_backward", (M,), {"input_shape": (5, 7, 1, 1)}),
    ("sgd_step", ([M.clone()], [M], [M.clone()]),
     {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}),
]  # fmt: skip
JUNK: list[Any] = [
    None, "text", 3, 2.5, (), (1, 2, 3), (0, -1), (1, "a"), (2**70, 1), (2**62, 2**62), [None], [M, "text"],
    np.ones((2, 3, 6, 6), np.float32), torch.ones(()), torch.ones(2, 3, 6, 6, dtype=torch.int64),
    torch.ones(2, 3, 6, 6, dtype=torch.bfloat16), torch.ones(2, 3, 6, 6, device="meta"), M.to_sparse(),
    torch.ones(1, 1, 1, 1), torch.ones(0, 3, 6, 6), torch.ones(2, 0, 6, 6),
    torch.ones(5, 3, dtype=torch.complex64), (None,) * 4, (None,) * 5, ("fused", M), ("composed", 1, 2),
    torch.full((5,), 10**9), torch.ones(1).expand(2**20, 2**20, 2**10, 2**9),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arrays", "attributes"), CALLS)
def test_bad_input_gives_an_error_or_a_result(
    cpp: Backend, name: str, arrays: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    function = getattr(cpp, name)
    function(*arrays, **attributes)
    refused = 0
    for junk in JUNK:
        wrong = [([*arrays[:i], junk, *arrays[i + 1 :]], attributes) for i in range(len(arrays))]
        wrong += [(list(arrays), {**attributes, key: junk}) for key in attributes]
        for positional, named in wrong:
            try:
                function(*positional, **named)
            except (ValueError, TypeError, MemoryError):
                refused += 1
    assert refused > 10


def test_attributes_inside_conv_and_pool_are_checked_too(cpp: Backend) -> None:
    for junk in JUNK:
        for key in Conv._fields:
            with pytest.raises((ValueError, TypeError, MemoryError)):
                cpp.conv2d_relu_forward(X, W, B, conv=CONV._replace(**{key: junk}))
        for key in ("kernel_size", "stride", "padding", "dilation"):
            with pytest.raises((ValueError, TypeError, MemoryError)):
                cpp.conv2d_max_pool2d_forward(X, W, B, conv=CONV, pool=POOL._replace(**{key: junk}))


@pytest.mark.parametrize("op", ["conv2d_max_pool2d", "conv2d_relu_max_pool2d"])
@pytest.mark.parametrize(
    ("pool", "kind"),
    [(POOL, "fused"), (POOL._replace(kernel_size=(16, 16), padding=(8, 8)), "composed")],
    ids=["fused", "composed"],
)
def test_what_a_fused_pool_saves_says_its_kind(cpp: Backend, op: str, pool: Pool, kind: str) -> None:
    """No winner's number of a window with more than 255 cells fits its byte: that one is composed."""
    y, saved = getattr(cpp, f"{op}_forward")(X, W, B, conv=CONV, pool=pool)
    assert saved[0] == kind
    assert getattr(cpp, f"{op}_forward")(X, W, B, conv=CONV, pool=pool, need_saved=False)[1] is None
    backward = getattr(cpp, f"{op}_backward")
    assert len(backward(y, X, W, saved, conv=CONV, pool=pool)) == 3
    with pytest.raises(ValueError, match=rf"^\[{op}_backward\] saved: expected what the forward pass"):
        backward(y, X, W, ("other", *saved[1:]), conv=CONV, pool=pool)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 3), np.float32), "[relu] x: expected a torch.Tensor, got numpy.ndarray"),
        (None, "[relu] x: expected a torch.Tensor, got None"),
        (torch.ones(2, device="meta"), "[relu] x: expected device cpu, got meta"),
        (torch.ones(2, dtype=torch.bfloat16), "[relu] x: expected dtype float32 or float64, got bfloat16"),
        (torch.ones(2, 2).to_sparse(), "[relu] x: expected a dense tensor, got SparseCPUFloatType"),
    ],
)
def test_what_is_no_array_is_named(cpp: Backend, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match="relu") as caught:
        cpp.relu_forward(x)
    assert str(caught.value) == message


def test_sizes_that_overflow_are_refused(cpp: Backend) -> None:
    huge = torch.ones(1).expand(2**30, 2**20, 2**10, 1)
    with pytest.raises(
        ValueError, match=r"\[conv2d\] padding: expected two or four integers below 2\*\*31"
    ):
        cpp.conv2d_forward(X, W, B, **{**CONV._asdict(), "padding": (2**31, 0)})
    with pytest.raises(ValueError, match=r"fewer than 2\*\*48 elements"):
        cpp.adaptive_avg_pool2d_forward(X, output_size=(2**30, 2**30))
    with pytest.raises((ValueError, MemoryError)):
        cpp.relu_forward(huge)


def test_product_of_sizes_that_is_a_multiple_of_2_to_the_64(cpp: Backend) -> None:
    """What one image takes as columns came to 0 bytes, and the batch was divided by it."""
    x, weight = torch.empty(0, 8, 2**43 + 2**16 - 1, 1), torch.zeros(16, 8, 2**16, 1)
    conv = {**CONV._asdict(), "padding": (0, 0)}
    dx, dw, db = cpp.conv2d_backward(torch.empty(0, 16, 2**43, 1), x, weight, **conv)
    assert dx.shape == x.shape
    assert not dw.any()
    assert not db.any()


def test_sizes_that_overflow_are_refused_in_empty_arrays_too(cpp: Backend) -> None:
    """NumPy has no such arrays, and torch has."""
    too_many = r"x: expected fewer than 2\*\*48 elements, got shape \(0, "
    with pytest.raises(ValueError, match=too_many):
        cpp.softmax_forward(torch.empty(0, 2**62))
    with pytest.raises(ValueError, match=too_many):
        cpp.relu_forward(torch.empty(0, 2**31, 2**30))
    image = torch.empty(0, 2**20, 2**20, 2**20)
    for call in (
        lambda: cpp.max_pool2d_forward(image, **POOL._asdict(), need_argmax=True),
        lambda: cpp.adaptive_avg_pool2d_forward(image, output_size=(1, 1)),
        lambda: cpp.flatten_forward(image),
        lambda: cpp.batch_norm2d_forward(image, None, None, None, None, **NORM),
    ):
        with pytest.raises(ValueError, match=too_many):
            call()
    with pytest.raises(ValueError, match=r"y: expected fewer than 2\*\*48 elements"):
        cpp.adaptive_avg_pool2d_forward(torch.empty(0, 1, 1, 1), output_size=(2**30, 2**30))
