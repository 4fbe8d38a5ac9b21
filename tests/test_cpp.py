"""What only the cpp backend promises: the same bits for any number of threads, settings of others left
alone, and the GIL released."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import LISTED
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.backends import Backend, Conv, Pool, available_backends, get_backend
from minicnn.backends.numpy_backend import NumpyBackend

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

import torch  # noqa: E402 - not there where the file is skipped

NUMPY = NumpyBackend()
CONV, POOL = Conv((1, 1), (1, 1), (1, 1), 1), Pool((2, 2), (2, 2), (0, 0), (1, 1), False)


@pytest.fixture(scope="module")
def cpp() -> Backend:
    return get_backend("cpp")


def normal(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


# ---- threads -------------------------------------------------------------------------------------


@pytest.fixture
def with_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def everything(b: Backend, dtype: str) -> dict[str, bytes]:
    """The bytes of every operation's results, on arrays large enough to be shared among threads."""
    rng = np.random.default_rng(7)

    def a(*shape: int) -> Any:
        return b.asarray(normal(rng, *shape, dtype=dtype))

    x, weight, bias = a(9, 11, 37, 29), a(13, 11, 3, 3), a(13)
    gamma, beta, residual = a(11), a(11), a(9, 11, 37, 29)
    images, pooled = a(9, 13, 37, 29), a(9, 13, 18, 14)
    rows, matrix, out = a(301, 517), a(67, 517), a(301, 67)
    labels = b.asarray(rng.integers(0, 517, 301))
    results: dict[str, Any] = {
        "conv": b.conv2d_forward(x, weight, bias, **CONV._asdict()),
        "conv_backward": b.conv2d_backward(images, x, weight, **CONV._asdict()),
        "dense": b.dense_relu_forward(rows, matrix, None)[0],
        "dense_backward": b.dense_backward(out, rows, matrix),
        "relu": b.relu_forward(x),
        "softmax": b.softmax_forward(rows),
        "loss": b.softmax_cross_entropy_forward(rows, labels, label_smoothing=0.1),
        "flatten": b.flatten_forward(x),
        "adaptive": b.adaptive_avg_pool2d_forward(x, output_size=(5, 4)),
        "norm": b.asarray(np.array(b.global_norm([x, weight, rows]))),
    }
    y, saved = b.conv2d_relu_max_pool2d_forward(x, weight, bias, conv=CONV, pool=POOL)
    results["fused"] = y
    results["fused_backward"] = b.conv2d_relu_max_pool2d_backward(
        pooled, x, weight, saved, conv=CONV, pool=POOL
    )
    y, argmax = b.max_pool2d_forward(x, **POOL._asdict())
    results["pool_backward"] = b.max_pool2d_backward(y, argmax, input_shape=x.shape, **POOL._asdict())
    norm = {"training": True, "momentum": 0.1, "eps": 1e-5}
    y, saved = b.batch_norm2d_add_relu_forward(x, residual, gamma, beta, None, None, **norm)
    results["norm_backward"] = b.batch_norm2d_add_relu_backward(residual, x, gamma, saved, training=True)
    y, saved = b.batch_norm2d_relu_max_pool2d_forward(x, gamma, beta, None, None, **norm, pool=POOL)
    results["norm_pool_backward"] = b.batch_norm2d_relu_max_pool2d_backward(
        y, x, gamma, saved, training=True, pool=POOL
    )
    params = [a(64, 517), a(64, 11, 3, 3)]
    b.adam_step(
        params, [a(64, 517), a(64, 11, 3, 3)], [a(64, 517), a(64, 11, 3, 3)],
        [b.asarray(np.ones((64, 517), dtype)), b.asarray(np.ones((64, 11, 3, 3), dtype))],
        lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, decoupled=True, step=3,
    )  # fmt: skip
    results["adam"] = params
    arrays = {
        f"{name}[{i}]": array
        for name, value in results.items()
        for i, array in enumerate(value if isinstance(value, (tuple, list)) else [value])
    }
    return {name: b.to_numpy(array).tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_any_number_of_threads(
    cpp: Backend, dtype: str, with_threads: Callable[[int], None]
) -> None:
    with_threads(1)
    expected = everything(cpp, dtype)
    for threads in (1, 2, 3, 8):
        with_threads(threads)
        actual = everything(cpp, dtype)
        assert [name for name in expected if actual[name] != expected[name]] == [], f"{threads} threads"


@pytest.mark.parametrize(
    ("channels", "filters", "stride", "size"),
    [(64, 72, 2, 12), (64, 100, 1, 8), (130, 128, 1, 6)],
    ids=["the direct way", "Winograd's way or the direct one", "a last block that is narrow"],
)
def test_filters_that_are_cut_between_threads(
    cpp: Backend, channels: int, filters: int, stride: int, size: int, rng: np.random.Generator,
    with_threads: Callable[[int], None],
) -> None:  # fmt: skip
    """One small image and many filters: each thread has its own of them, and all get theirs."""
    x = rng.standard_normal((1, channels, size, size)).astype(np.float32)
    weight = (rng.standard_normal((filters, channels, 3, 3)) / 30).astype(np.float32)
    bias = rng.standard_normal(filters).astype(np.float32)
    images = [torch.from_numpy(a).double() for a in (x, weight, bias)]
    expected = torch.nn.functional.conv2d(*images, stride, 1).numpy()
    found = set()
    for threads in (1, 2, 5):
        with_threads(threads)
        y = cpp.conv2d_forward(
            *map(cpp.asarray, (x, weight, bias)), stride=(stride, stride), padding=(1, 1), dilation=(1, 1),
            groups=1,
        )  # fmt: skip
        np.testing.assert_allclose(cpp.to_numpy(y), expected, rtol=1e-4, atol=1e-4)
        found.add(cpp.to_numpy(y).tobytes())
    assert len(found) == 1


def test_gil_is_released(cpp: Backend, rng: np.random.Generator) -> None:
    x, weight = cpp.asarray(normal(rng, 16, 64, 56, 56)), cpp.asarray(normal(rng, 64, 64, 3, 3))
    count, stop = 0, threading.Event()

    def spin() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0.0005)

    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        before = count
        for _ in range(3):
            cpp.conv2d_forward(x, weight, None, **CONV._asdict())
        during = count - before
    finally:
        stop.set()
        spinner.join()
    assert during >= 5


# ---- what belongs to others ----------------------------------------------------------------------


def test_settings_of_torch_stay(cpp: Backend) -> None:
    def seen() -> tuple[Any, ...]:
        return (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
                torch.get_float32_matmul_precision(), float(torch.tensor(1e-40) * 1.0) > 0)  # fmt: skip

    before = seen()
    assert before[-1], "denormals were flushed before the test"
    everything(cpp, "float32")
    assert seen() == before


def test_denormals_do_not_slow_it_down(cpp: Backend, rng: np.random.Generator) -> None:
    x, weight = normal(rng, 8, 32, 28, 28), normal(rng, 32, 32, 3, 3)

    def fastest(scale: float) -> float:
        a, w = cpp.asarray(np.float32(scale) * x), cpp.asarray(weight)
        times = []
        for _ in range(7):
            start = time.perf_counter()
            cpp.conv2d_forward(a, w, None, **CONV._asdict())
            times.append(time.perf_counter() - start)
        return min(times)

    fastest(1.0)
    assert fastest(1e-40) < 5 * fastest(1.0)


# ---- arrays --------------------------------------------------------------------------------------


def test_any_host_array_is_taken(cpp: Backend, rng: np.random.Generator) -> None:
    a = normal(rng, 2, 3, 4, 5)
    read_only = a.copy()
    read_only.flags.writeable = False
    buffer = np.zeros(a.nbytes + 1, np.uint8)[1:]
    misaligned = np.ndarray(a.shape, a.dtype, buffer)
    misaligned[:] = a
    assert not misaligned.flags.aligned
    variants = [a, a[:, ::-1], np.asfortranarray(a), read_only, misaligned, a.astype(">f4"), a[:0]]
    for variant in variants:
        array = cpp.asarray(variant)
        np.testing.assert_array_equal(cpp.to_numpy(array), variant)
        np.testing.assert_array_equal(cpp.to_numpy(cpp.relu_forward(array)), np.maximum(variant, 0))


def test_memory_order_of_an_input_does_not_matter(cpp: Backend, rng: np.random.Generator) -> None:
    x, weight = torch.from_numpy(normal(rng, 3, 5, 9, 8)), torch.from_numpy(normal(rng, 4, 5, 3, 3))
    expected = cpp.conv2d_forward(
        cpp.asarray(x.numpy()), cpp.asarray(weight.numpy()), None, **CONV._asdict()
    )
    strided = torch.empty(3, 5, 9, 16)[..., ::2].copy_(x)
    for variant in (x, strided, x.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)):
        y = cpp.conv2d_forward(variant, weight, None, **CONV._asdict())
        assert torch.equal(y, expected)
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_arrays_in_another_order_are_changed_in_place(cpp: Backend, rng: np.random.Generator) -> None:
    param = torch.from_numpy(normal(rng, 4, 3, 5, 5))
    grad = cpp.asarray(normal(rng, 4, 3, 5, 5))
    expected = param - 0.5 * grad
    buffers = [cpp.asarray(np.zeros((4, 3, 5, 5), np.float32))]
    cpp.sgd_step([param], [grad], buffers, lr=0.5, momentum=0.0, weight_decay=0.0, nesterov=False)
    assert torch.allclose(param, expected)


# ---- random shapes -------------------------------------------------------------------------------

Problem = tuple[np.ndarray, np.ndarray, Conv, np.random.Generator]
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw: st.DrawFn) -> Problem:
    """x, weight and attributes of a convolution that fits its image."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation, padding = (
        draw(pairs),
        draw(pairs),
        draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
    )
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 14))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, channels, filters = draw(st.integers(0, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    x = normal(rng, n, channels * groups, *size, dtype="float64")
    weight = normal(rng, filters * groups, channels, *kernel, dtype="float64")
    return x, weight, Conv(draw(pairs), padding, dilation, groups), rng


def refusal(b: Backend, name: str, *arrays: np.ndarray | None, **attributes: Any) -> str | None:
    """The message with which the backend refuses these arguments, or None."""
    try:
        getattr(b, name)(*(None if a is None else b.asarray(a) for a in arrays), **attributes)
    except ValueError as error:
        return str(error)
    return None


def same(cpp: Backend, call: Callable[[Backend, Callable[[np.ndarray], Any]], Any]) -> None:
    """Both backends give the same arrays."""
    actual, expected = call(cpp, cpp.asarray), call(NUMPY, NUMPY.asarray)
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            np.testing.assert_allclose(cpp.to_numpy(a), e, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(problem=convolutions(), need=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_random_convolutions(cpp: Backend, problem: Problem, need: tuple[bool, ...]) -> None:
    x, weight, conv, rng = problem
    bias = normal(rng, len(weight), dtype="float64")
    y = NUMPY.conv2d_forward(x, weight, bias, **conv._asdict())
    dy = normal(rng, *y.shape, dtype="float64")
    flags = dict(zip(("need_dx", "need_dw", "need_db"), need, strict=True))
    same(cpp, lambda b, a: [b.conv2d_forward(a(x), a(weight), a(bias), **conv._asdict())])
    same(cpp, lambda b, a: b.conv2d_backward(a(dy), a(x), a(weight), **conv._asdict(), **flags))


@settings(max_examples=60, deadline=None)
@given(
    problem=convolutions(), kernel=pairs, stride=pairs, dilation=pairs, ceil_mode=st.booleans(),
    relu=st.booleans(),
)  # fmt: skip
def test_random_fused_convolutions_and_pools(
    cpp: Backend, problem: Problem, kernel: tuple[int, int],
    stride: tuple[int, int], dilation: tuple[int, int], ceil_mode: bool, relu: bool,
) -> None:  # fmt: skip
    x, weight, conv, rng = problem
    pool = Pool(kernel, stride, (kernel[0] // 2, kernel[1] // 2), dilation, ceil_mode)
    op = "conv2d_relu_max_pool2d" if relu else "conv2d_max_pool2d"
    message = refusal(NUMPY, f"{op}_forward", x, weight, None, conv=conv, pool=pool)
    if message is not None:
        assert message == refusal(cpp, f"{op}_forward", x, weight, None, conv=conv, pool=pool)
        return
    y, _ = getattr(NUMPY, f"{op}_forward")(x, weight, None, conv=conv, pool=pool)
    dy = normal(rng, *y.shape, dtype="float64")

    def both(b: Backend, a: Callable[[np.ndarray], Any]) -> list[Any]:
        y, saved = getattr(b, f"{op}_forward")(a(x), a(weight), None, conv=conv, pool=pool)
        return [y, *getattr(b, f"{op}_backward")(a(dy), a(x), a(weight), saved, conv=conv, pool=pool)]

    same(cpp, both)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(0, 3), c=st.integers(1, 40), size=st.tuples(
        st.integers(1, 12), st.integers(1, 12)), kernel=pairs, stride=pairs, ceil_mode=st.booleans(),
    include=st.booleans(),
)  # fmt: skip
def test_random_pools_and_norms(
    cpp: Backend, seed: int, n: int, c: int, size: tuple[int, int], kernel: tuple[int, int],
    stride: tuple[int, int], ceil_mode: bool, include: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    x = normal(rng, n, c, max(size[0], kernel[0]), max(size[1], kernel[1]), dtype="float64")
    window = {"kernel_size": kernel, "stride": stride, "padding": (kernel[0] // 2, kernel[1] // 2),
              "ceil_mode": ceil_mode}  # fmt: skip
    shape = {"input_shape": x.shape}
    pool = Pool(**window, dilation=(1, 1))
    gamma, beta, mean, var = (np.abs(normal(rng, c, dtype="float64")) + 0.5 for _ in range(4))

    def average(b: Backend, a: Callable[[np.ndarray], Any]) -> list[Any]:
        y = b.avg_pool2d_forward(a(x), **window, count_include_pad=include)
        small = b.adaptive_avg_pool2d_forward(a(x), output_size=kernel)
        return [y, b.avg_pool2d_backward(y, **shape, **window, count_include_pad=include),
                small, b.adaptive_avg_pool2d_backward(small, **shape)]  # fmt: skip

    def normalise(b: Backend, a: Callable[[np.ndarray], Any]) -> list[Any]:
        rest = {"training": False, "momentum": 0.1, "eps": 1e-5}
        y, saved = b.batch_norm2d_relu_max_pool2d_forward(
            a(x), a(gamma), a(beta), a(mean), a(var), **rest, pool=pool
        )
        backward = b.batch_norm2d_relu_max_pool2d_backward
        return [y, *backward(y, a(x), a(gamma), saved, training=False, pool=pool)]

    same(cpp, average)
    same(cpp, normalise)
