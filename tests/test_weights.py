"""State dicts as training scripts save them: what is understood, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from minicnn.checkpoint import CheckpointError
from minicnn.layers import BatchNorm2d, Conv2d, Flatten, Sequential
from minicnn.pretrained import init_from

State = dict[str, Any]


def net(dtype: str = "float32", seed: int = 0) -> Sequential:
    parts = {"conv": Conv2d(1, 2, 3), "bn": BatchNorm2d(2), "flat": Flatten(), "model": Sequential({})}
    return Sequential(parts, backend="numpy", dtype=dtype, seed=seed)


def state(seed: int = 1) -> State:
    """A state for the net, of torch's tensors, whose values bfloat16 holds."""
    rng = np.random.default_rng(seed)
    found = {name: torch.from_numpy(a) for name, a in net().state_dict().items()}
    for tensor in found.values():
        tensor.copy_(torch.from_numpy(rng.integers(1, 9, tensor.shape)))
    return found


def prefixed(prefix: str, tensors: State) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_counts(tensors: State) -> State:
    return {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}


def load(model: Sequential, content: Any, way: str, folder: Path) -> list[str]:
    """Give the content to a model by load_state_dict or in a file; what --init-from tells of it."""
    if way == "load_state_dict":
        model.load_state_dict(content)
        return []
    torch.save(content, folder / "weights.pth")
    return init_from(model, folder / "weights.pth").notes


WAYS = pytest.mark.parametrize("way", ["load_state_dict", "init_from"])
UNDERSTOOD: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "plain": (state, []),
    **{
        prefix: (lambda prefix=prefix: prefixed(prefix, state()), [f"names without {prefix}"])
        for prefix in ("module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.model.")
    },
    **{
        key: (lambda key=key: {"epoch": 3, key: state()}, [f"the state dict under {key}"])
        for key in ("state_dict", "model_state_dict", "model", "net", "model_ema", "ema_state_dict")
    },
    "nested": (
        lambda: {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "model": {"state_dict": state()}},
        ["the state dict under model.state_dict"],
    ),
    "settings beside": (
        lambda: {"model": {"depth": 3}, "net": prefixed("module.", state())},
        ["the state dict under net", "names without module."],
    ),
    "averaged": (
        lambda: {"model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.", state())}},
        ["the state dict under model_ema", "names without module."],
    ),
    "averaged in parallel": (
        lambda: {"module.n_averaged": torch.tensor(7), **prefixed("module.module.", state())},
        ["names without module.module."],
    ),
}  # fmt: skip


@WAYS
@pytest.mark.parametrize("name", UNDERSTOOD)
def test_usual_files_are_understood(name: str, way: str, tmp_path: Path) -> None:
    make, notes = UNDERSTOOD[name]
    model = net()
    told = load(model, make(), way, tmp_path)
    if way == "init_from":
        assert told == notes
    for key, a in model.state_dict().items():
        np.testing.assert_array_equal(a, state()[key].numpy(), err_msg=key)


@WAYS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_size_become_the_models(
    half: torch.dtype, dtype: str, way: str, tmp_path: Path
) -> None:
    model = net(dtype)
    load(model, {key: tensor.to(half) for key, tensor in state().items()}, way, tmp_path)
    for key, a in model.state_dict().items():
        assert a.dtype == (np.int64 if "num_batches" in key else dtype)
        np.testing.assert_array_equal(a, state()[key].numpy(), err_msg=key)


def test_bfloat16_in_safetensors(tmp_path: Path) -> None:
    tensors = {key: torch.randn(tensor.shape).bfloat16() for key, tensor in without_counts(state()).items()}
    save_file({**tensors, "bn.num_batches_tracked": torch.tensor(3)}, tmp_path / "w.safetensors")
    model = net()
    init_from(model, tmp_path / "w.safetensors")
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(model.state_dict()[key], tensor.float().numpy(), err_msg=key)


@WAYS
def test_batch_norms_without_a_count_start_theirs_at_0(way: str, tmp_path: Path) -> None:
    model = net()
    model.load_state_dict(state())
    assert model.state_dict()["bn.num_batches_tracked"] > 0
    load(model, without_counts(state()), way, tmp_path)
    assert model.state_dict()["bn.num_batches_tracked"] == 0


def test_a_models_own_names_come_before_prefixes() -> None:
    inner = Sequential({"model": Sequential({"0": Conv2d(1, 2, 3)})}, backend="numpy")
    own = {name: a + 1 for name, a in inner.state_dict().items()}
    for content in (own, prefixed("model.", own), prefixed("module.", own)):
        inner.load_state_dict(content)
        np.testing.assert_array_equal(inner.state_dict()["model.0.bias"], own["model.0.bias"])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two states": (
        lambda: {"model": state(1), "model_ema": state(2)},
        "expected one state dict, got several: model, model_ema",
    ),
    "two at different depths": (
        lambda: {"model": {"state_dict": state(1), "ema": state(2)}},
        "expected one state dict, got several: model.state_dict, model.ema",
    ),
    "a prefix of some": (
        lambda: {("module." if "conv" in name else "") + name: a for name, a in state().items()},
        "expected module. before all names or before none, got module.conv.weight, module.conv.bias and",
    ),
    "both with and without": (
        lambda: {**state(), **prefixed("module.", state())},
        "it has module.conv.weight, module.conv.bias, module.bn.weight and 4 more, which the model has not",
    ),
    "a name too many beside a prefix": (
        lambda: {**prefixed("model.", state()), "loss.weight": torch.ones(2)},
        "expected model. before all names or before none",
    ),
    "one missing behind a prefix": (
        lambda: {key: a for key, a in prefixed("module.", state()).items() if key != "module.bn.bias"},
        "the state does not fit the model: it has no bn.bias",
    ),
    "another shape behind a prefix": (
        lambda: {**prefixed("module.", state()), "module.bn.bias": torch.ones(2, 1)},
        "the state does not fit the model: bn.bias: expected shape (2,), got (2, 1)",
    ),
    "complex": (
        lambda: {**state(), "conv.bias": torch.ones(2, dtype=torch.complex64)},
        "conv.bias: expected a dense tensor of real numbers, got torch.complex64",
    ),
    "conjugate": (
        lambda: {**state(), "conv.bias": torch.ones(2, dtype=torch.complex64).conj()},
        "conv.bias: expected a dense tensor of real numbers, got torch.complex64",
    ),
    "sparse": (
        lambda: {**state(), "conv.bias": torch.ones(2).to_sparse()},
        "conv.bias: expected a dense tensor of real numbers, got one of layout torch.sparse_coo",
    ),
    "meta": (
        lambda: {**state(), "conv.bias": torch.ones(2, device="meta")},
        "conv.bias: expected a dense tensor of real numbers, got one without values, on the device meta",
    ),
    "no tensor": (
        lambda: {**state(), "fc._extra_state": None},
        "expected a state dict of tensors, got NoneType under fc._extra_state",
    ),
    "a number as a name": (lambda: {**state(), 3: torch.ones(2)}, "a state dict with names, got the key 3"),
    "no dictionary": (lambda: [1], "expected a state dict, got list"),
    "an empty one": (dict, "expected a state dict, got an empty one"),
    "an infinite count": (
        lambda: {**state(), "bn.num_batches_tracked": torch.tensor(np.inf)},
        "bn.num_batches_tracked: expected numbers that int64 holds, got others",
    ),
    "half a batch": (
        lambda: {**state(), "bn.num_batches_tracked": torch.tensor(0.5)},
        "bn.num_batches_tracked: expected whole numbers, got others",
    ),
    "beyond float32": (
        lambda: {**state(), "bn.bias": torch.full((2,), 1e300, dtype=torch.float64)},
        "bn.bias: expected numbers that float32 holds, got others",
    ),
}  # fmt: skip


@WAYS
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_understood_is_refused(name: str, way: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    model = net()
    before = model.state_dict()
    start = "[load_state_dict] " if way == "load_state_dict" else f"{tmp_path / 'weights.pth'}: "
    with pytest.raises(ValueError, match=r"expected|does not fit") as error:
        load(model, make(), way, tmp_path)
    assert isinstance(error.value, CheckpointError) == (way == "init_from")
    assert str(error.value).startswith(start)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    for key, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[key], err_msg=key)


def test_odd_tensors_in_memory_are_refused() -> None:
    """Those that no file holds, or that torch reads back as something else."""
    fake = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode
    with fake():
        unreal = torch.ones(2)
    nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(1)], layout=torch.jagged)
    odd = {
        "FakeTensor": unreal,
        "a nested one": nested,
        "a lazy one": torch.nn.UninitializedParameter(),
        "complex128": np.ones(2, complex),
        "<U1": np.array(["a", "b"]),
        "object": np.array([None, None]),
    }
    for message, value in odd.items():
        with pytest.raises(ValueError, match=rf"^\[load_state_dict\] conv.bias: expected .*got {message}"):
            net().load_state_dict({**state(), "conv.bias": value})


def test_negated_views_have_their_values() -> None:
    model = net()
    bias = torch.complex(torch.ones(2), torch.ones(2)).conj().imag
    assert bias.is_neg()
    model.load_state_dict({**state(), "conv.bias": bias})
    np.testing.assert_array_equal(model.state_dict()["conv.bias"], [-1, -1])
