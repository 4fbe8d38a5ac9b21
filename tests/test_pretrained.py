"""--init-from and --freeze: weights of files, what is refused, and runs that go on with them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from minicnn import checkpoint, models, train
from minicnn.app.command_line import exit_with
from minicnn.checkpoint import CheckpointError
from minicnn.layers import Sequential
from minicnn.pretrained import init_from
from minicnn.torch_reference import to_torch

RUN = [
    "--model", "lenet5", "--limit-train", "96", "--limit-test", "32", "--batch-size", "16",
    "--backend", "numpy", "--schedule", "constant", "--threads", "1",
]  # fmt: skip


def net(name: str = "resnet20", classes: int = 4, seed: int = 0) -> Sequential:
    return models.create(
        name, in_channels=3, num_classes=classes, image_size=32, backend="numpy", seed=seed
    )


def write_safetensors(model: Sequential, path: Path) -> Path:
    save_file(model.state_dict(), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_torch(model: Sequential, path: Path) -> Path:
    torch.save(to_torch(model).state_dict(), path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_all_weights_are_taken(write: Callable[[Sequential, Path], Path], tmp_path: Path) -> None:
    source, model = net(seed=1), net(seed=2)
    assert init_from(model, write(source, tmp_path / "weights")) == ([], [], [])
    expected = source.state_dict()
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, expected[name], strict=True, err_msg=name)


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_head_for_another_number_of_classes_is_new(
    write: Callable[[Sequential, Path], Path], tmp_path: Path
) -> None:
    source, model = net(seed=1, classes=7), net(seed=2)
    first, expected = model.state_dict(), source.state_dict()
    assert init_from(model, write(source, tmp_path / "weights")).new == ["fc.weight", "fc.bias"]
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(
            a, (first if name.startswith("fc.") else expected)[name], err_msg=name
        )


def test_weights_of_torchvision_with_auxiliary_heads_in_half_precision(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision", reason="needs torchvision")
    module = torchvision.models.googlenet(num_classes=9, init_weights=True).bfloat16()
    state = {name: a for name, a in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "googlenet.pth")
    model = net("googlenet")
    taken = init_from(model, tmp_path / "googlenet.pth")
    assert taken.new == ["fc.weight", "fc.bias"]
    assert {name.split(".")[0] for name in taken.ignored} == {"aux1", "aux2"}
    weight = module.state_dict()["inception3a.branch2.1.conv.weight"].float().numpy()
    np.testing.assert_array_equal(model.state_dict()["inception3a.branch2.1.conv.weight"], weight)


def edited(**changes: Any) -> Callable[[Path], None]:
    """A writer of resnet20's state with tensors replaced, or left out where None."""

    def write(path: Path) -> None:
        state = net(seed=1).state_dict() | {key.replace("__", "."): a for key, a in changes.items()}
        save_file({key: a for key, a in state.items() if a is not None}, path)

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pth", lambda _: None, "there is no such file"),
        ("w.safetensors", lambda _: None, "there is no such file"),
        ("w.pth", lambda path: path.write_bytes(b"nonsense"), "is torn, or not a state dict of torch's: "),
        ("w.safetensors", lambda path: path.write_bytes(b"nonsense"), "is torn, or not a safetensors file"),
        (
            "w.pt",
            lambda path: torch.save(argparse.Namespace(a=1), path),
            "is torn, or not a state dict of torch's: Weights only load failed",
        ),
        ("w.pt", lambda path: torch.save([1], path), "expected a state dict, got list"),
        ("w.pt", lambda path: torch.save({}, path), "expected a state dict, got an empty one"),
        ("w.pt", lambda path: torch.save({"lr": 1}, path), "a state dict of tensors, got int under lr"),
        (
            "w.safetensors",
            edited(conv1__weight=None, extra=np.zeros(1)),
            "does not fit the model: it has no conv1.weight; extra, which the model has not",
        ),
        (
            "w.safetensors",
            lambda path: save_file(net("vgg_small").state_dict(), path),
            "it has no conv1.weight, bn1.weight, bn1.bias and 104 more; classifier.bias, ",
        ),
        (
            "w.safetensors",
            edited(conv1__weight=np.zeros((16, 1, 3, 3))),
            "does not fit the model: conv1.weight: expected shape (16, 3, 3, 3), got (16, 1, 3, 3)",
        ),
        (
            "w.safetensors",
            edited(fc__weight=np.zeros((4, 3))),
            "does not fit the model: fc.weight: expected shape (4, 64), got (4, 3)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    name: str, write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    model = net(seed=2)
    before = model.state_dict()
    with pytest.raises(CheckpointError) as error:
        init_from(model, tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert message in str(error.value)
    for key, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[key], err_msg=key)


def test_torch_files_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_torch(net(), tmp_path / "weights")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"only torch reads this format: pip install torch, or give"):
        init_from(net(), path)


# ---- the command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    train.main([*RUN, "--epochs", "1", "--out", str(out)])
    return out


def test_a_run_from_anothers_weights_goes_on_without_the_file(
    first_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((first_run / "best.safetensors").read_bytes())
    start = checkpoint.load(weights).model
    flags = [*RUN, "--seed", "1", "--init-from", str(weights), "--freeze", "conv1,conv2", "--ema", "0.9"]
    train.main([*flags, "--epochs", "2", "--out", str(tmp_path / "whole")])
    assert f"first weights: {weights}\n" in capsys.readouterr().out
    train.main([*flags, "--epochs", "1", "--out", str(tmp_path / "parts")])
    weights.unlink()
    train.main(["--resume", "--epochs", "2", "--out", str(tmp_path / "parts")])
    whole, parts = (
        checkpoint.load(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")
    )
    for name, a in whole.model.items():
        np.testing.assert_array_equal(parts.model[name], a, err_msg=name)
        assert np.array_equal(a, start[name]) == name.startswith("conv"), name
    assert not [name for name in whole.optimizer if ".conv" in name]
    config = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert (config["init_from"], config["freeze"]) == (str(weights), "conv1,conv2")


def test_the_command_says_how_it_understood_the_file(
    first_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint.load(first_run / "best.safetensors").model
    content = {"net": {f"module.{name}": torch.from_numpy(a) for name, a in state.items()}}
    torch.save(content, tmp_path / "w.pt")
    train.main([*RUN, "--dry-run", "--init-from", str(tmp_path / "w.pt")])
    assert "of the file: the state dict under net, names without module." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--freeze", "conv1,conv9"],
            "[freeze] names: expected layers with parameters, in or below conv1,",
        ),
        (["--freeze", "*"], "--freeze * leaves nothing to train"),
        (["--init-from", "nowhere.pth"], "nowhere.pth: there is no such file"),
    ],
)
def test_train_refuses(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: train.main([*RUN, *arguments, "--out", str(tmp_path / "r")]))
    assert stop.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_resume_refuses_other_frozen_layers(first_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exit_with(lambda: train.main(["--resume", "--freeze", "conv1", "--out", str(first_run)]))
    assert "expected the run's own --freeze None, got conv1" in capsys.readouterr().err
