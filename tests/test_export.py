"""``export``: the files it writes, what it verifies, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from minicnn import checkpoint, data, models
from minicnn.app import engines, exporting
from minicnn.app.command_line import exit_with
from minicnn.app.commands import export, train
from minicnn.app.engines import Engine, load_engines
from minicnn.app.settings import Config
from minicnn.torch_program import METADATA

SAMPLE = data.SAMPLE
ALIKE = ("largest_difference", "largest_difference_of_probabilities")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a net that has learnt nothing of the bundled images."""
    dataset = data.load(SAMPLE, limit_train=100, limit_test=10)
    net = models.create("lenet5", in_channels=1, num_classes=10, image_size=28, backend="numpy", seed=0)
    state = net.state_dict()
    state["fc3.weight"] *= 20  # logits that tell the classes apart
    saved = checkpoint.Checkpoint(
        config=vars(Config.resolve(vars(train.parse(["--model", "lenet5", "--tta", "flip"])))),
        class_names=dataset.class_names, image_shape=(1, 28, 28), mean=list(dataset.mean),
        std=list(dataset.std), fingerprint="", model=state,
        history=[{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "lr": 0.1, "seconds": 1.0,
                  "images_per_second": 1.0, "temperature": 1.5}], epoch=1,
        sums={"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    checkpoint.save(path, saved)
    return path


def run(model: Path, *arguments: object) -> int | str | None:
    """The exit status of the command."""
    given = ["--checkpoint", str(model), "--backend", "numpy", *map(str, arguments)]
    with pytest.raises(SystemExit) as stop:
        exit_with(lambda: export.main(given))
    return stop.value.code


def metadata(path: Path) -> dict[str, Any]:
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


def test_an_onnx_model_proves_itself(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.onnx"
    assert run(model, "--to", "onnx", out, "--verify", SAMPLE, "--limit-test", 70, "--any-size") == 0
    said = capsys.readouterr().out
    assert "net.onnx: 0." in said
    assert "opset 18, batch norms folded" in said
    assert "without --tta flip" in said
    told = metadata(out)
    assert told["contract"]["temperature"] == 1.5
    assert told["contract"]["resize"]["in_the_model"]
    proof = told["verification"]
    assert (proof["data"], proof["backend"]) == (SAMPLE, "numpy")
    assert proof["versions"].keys() == {"minicnn", "onnx"}
    found = {one["engine"]: one for one in proof["engines"]}
    assert found.keys() >= {"onnxruntime"}
    for name, one in found.items():
        assert f"{name} {one['version']}: accuracy " in said
        assert one["images"] == 70
        assert one["other_answers"] == 0
        assert one["accuracy"] == one["accuracy_of_minicnn"]
        assert all(one[key] <= 1e-4 for key in ALIKE)
    (engine, *_) = load_engines("onnx", out.read_bytes(), 1)
    larger = np.random.default_rng(0).integers(0, 256, (3, 1, 50, 40)).astype(np.uint8)
    assert engine.run(larger)[0].shape == (3, 10)


def test_int8_is_smaller_and_verified_by_its_accuracy(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicnn.app.quantization.IMAGES", 64)
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else name)
    small, plain = tmp_path / "int8.onnx", tmp_path / "plain.onnx"
    given = ("--to", "onnx", small, "--quantize", "--verify", SAMPLE, "--limit-test", 100)
    assert run(model, *given) == 0
    assert "quantised by 64 training images" in capsys.readouterr().out
    assert run(model, "--to", "onnx", plain) == 0
    assert "not verified: --verify DATA" in capsys.readouterr().out
    assert small.stat().st_size < 0.4 * plain.stat().st_size
    kinds = {node.op_type for node in onnx.load(small).graph.node}
    assert kinds >= {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm", "Softmax"}
    (one,) = metadata(small)["verification"]["engines"]
    assert 1e-4 < one["largest_difference"] < 0.1 * one["largest_logit"], "int8 is near, and not the same"
    assert metadata(small)["class_names"] == metadata(plain)["class_names"]


def test_a_model_that_differs_is_an_error_and_no_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else name)
    out = tmp_path / "net.onnx"
    given = ("--to", "onnx", out, "--verify", SAMPLE, "--limit-test", 20, "--quiet")
    for part, factor, what in (("shift", 1.01, "logits"), ("temperature", 2, "probabilities")):
        content = exporting.onnx_content

        def wrong(*arguments: Any, part: str = part, factor: float = factor, **options: Any) -> Any:
            proto = onnx.load_from_string(content(*arguments, **options)({}))  # noqa: B023 - used at once
            for constant in proto.graph.initializer:
                if constant.name.endswith(part):
                    array = onnx.numpy_helper.to_array(constant) * np.float32(factor)
                    constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
            return lambda _: proto.SerializeToString()

        with monkeypatch.context() as patch:
            patch.setattr(exporting, "onnx_content", wrong)
            assert run(model, *given) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: [export] verify: onnxruntime ")
        assert f": expected {what} within " in said
        assert list(tmp_path.iterdir()) == []
    worse = Engine("half", "1", lambda x: (np.eye(10)[[0] * len(x)], np.eye(10)[[0] * len(x)]))
    monkeypatch.setattr(export, "load_engines", lambda *_: [worse])
    monkeypatch.setattr("minicnn.app.quantization.IMAGES", 32)
    monkeypatch.setattr(export, "predict_images", lambda _, images, *__, **___: np.eye(10)[images.y])
    assert run(model, *given, "--quantize", "--most-lost", 2) == 2
    expected = "half 1: expected an accuracy at most 2 points below minicnn's 100.00 %, got 10.00 %"
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_torch_proves_itself(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    out = tmp_path / "net.pt2"
    assert run(model, "--to", "torch", out, "--verify", SAMPLE, "--limit-test", 65) == 0
    assert "torch " in capsys.readouterr().out
    files: dict[str, Any] = {METADATA: ""}
    torch.export.load(io.BytesIO(out.read_bytes()), extra_files=files)
    (one,) = json.loads(files[METADATA])["verification"]["engines"]
    assert (one["engine"], one["images"], one["other_answers"]) == ("torch", 65, 0), "batches of 64 and 1"
    assert all(one[key] <= 1e-4 for key in ALIKE)


def test_plain_weights_are_the_models(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    assert run(model, "--to", "safetensors", out) == 0
    weights = checkpoint.load(model).model
    with safe_open(out, "numpy") as file:
        assert set(file.keys()) == set(weights)
        assert all(np.array_equal(file.get_tensor(name), a) for name, a in weights.items())
        told = file.metadata()
    assert told["format"] == "pt"
    contract = json.loads(told["contract"])
    assert (contract["input"]["height"], contract["input"]["dtype"]) == (28, "float32")
    assert not contract["normalisation"]["in_the_model"]
    assert list(contract["outputs"]) == ["logits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx", "net.pt2"], "--to onnx: expected a file name that ends in .onnx, got net.pt2"),
        (["--to", "torch", "no/net.pt2"], "no/net.pt2: expected a folder that is there, got no"),
        (["--to", "torch", "a.pt2", "--unfolded"], "--unfolded is for --to onnx, not for --to torch"),
        (["--to", "torch", "a.pt2", "--any-size"], "--any-size is for --to onnx, not for --to torch"),
        (["--to", "torch", "a.pt2", "--quantize"], "--quantize is for --to onnx, not for --to torch"),
        (["--to", "onnx", "a.onnx", "--quantize", "--unfolded"], "--unfolded does not go with --quantize"),
        (["--to", "safetensors", "a.safetensors", "--verify", "x"], "--verify is for --to onnx and --to"),
        (["--to", "safetensors", "MODEL"], "is the checkpoint: expected another file"),
        (["--to", "onnx", "a.onnx", "--verify", "imagenot"], "dataset: expected"),
        (["--to", "coreml", "a"], "argument --to: invalid choice: 'coreml'"),
        (["a.onnx"], "the following arguments are required: --to"),
    ],
)
def test_what_is_refused(
    model: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(model, *[str(model) if one == "MODEL" else one for one in arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "arguments"),
    [("onnx", ["--to", "onnx", "a.onnx"]), ("torch", ["--to", "torch", "a.pt2"]),
     ("onnxruntime", ["--to", "onnx", "a.onnx", "--quantize"]),
     ("onnxruntime", ["--to", "onnx", "a.onnx", "--verify", SAMPLE])],
)  # fmt: skip
def test_a_missing_package_is_named(
    package: str, arguments: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for module in (exporting, engines):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else name)
    assert run(model, *arguments, "--quiet") == 2
    extra = "torch" if package == "torch" else "export"
    assert f"the package {package}, which is not installed: pip install 'minicnn[{extra}]'" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_an_engine_does_not_take_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"^\[export\] verify: onnxruntime does not run the model: "):
        load_engines("onnx", b"no model", None)
