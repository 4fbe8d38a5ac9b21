"""What a backend is: the contract's names and signatures, all of them, and what importing costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKENDS

import minicnn
from minicnn import shapes
from minicnn.backends import Backend, BackendUnavailable, available_backends, choice, get_backend
from minicnn.backends.primitives import Primitives

PUBLIC = [name for name, member in inspect.getmembers(Backend, callable) if not name.startswith("_")]
OPERATIONS = [name.removesuffix("_forward") for name in PUBLIC if name.endswith("_forward")]


@pytest.mark.parametrize("name", ["numpy", "cpp", "cuda"])
def test_backend_is_available_or_says_why_not(name: str) -> None:
    reason = available_backends().get(name, f"{name} is no backend of this version")
    if name in BACKENDS:
        assert get_backend(name).name == name
        return
    if reason is None:
        pytest.skip(f"MINICNN_TEST_BACKENDS leaves out {name}")
    with pytest.raises(BackendUnavailable, match=name):
        get_backend(name)
    pytest.skip(f"{name} is not available here: {reason}")


def test_auto_takes_an_available_one_and_says_why() -> None:
    name, why = choice()
    assert available_backends()[name] is None
    assert why


@pytest.mark.parametrize("name", PUBLIC)
def test_signature_is_the_contract(backend: Backend, name: str) -> None:
    wanted = list(inspect.signature(getattr(Backend, name)).parameters.values())[1:]
    got = list(inspect.signature(getattr(backend, name)).parameters.values())
    assert [(p.name, p.kind, p.default) for p in got] == [(p.name, p.kind, p.default) for p in wanted]


def test_compiled_module_offers_the_contract_and_nothing_else(backend: Backend) -> None:
    if not hasattr(backend, "_module"):
        pytest.skip("this backend has no compiled module")
    functions = dict(inspect.getmembers(backend._module, inspect.isbuiltin))
    of_cuda = {"set_tf32", "tf32", "cross_entropy_gradient", "clip_norm", "read_step_numbers"}
    of_cpp = {"use_torch_threads", "measure_waking"}
    settings = of_cuda if backend.name == "cuda" else of_cpp
    assert set(functions) - settings == set(PUBLIC) - {"asarray", "to_numpy", "synchronize", "multiplying"}
    for name in set(functions) - settings:
        wanted = list(inspect.signature(getattr(Backend, name)).parameters.values())[1:]
        got = list(inspect.signature(functions[name]).parameters.values())
        assert [(p.name, p.kind, p.default) for p in got] == [(p.name, p.kind, p.default) for p in wanted]


def test_backend_adds_nothing_public(backend: Backend) -> None:
    added = {name for name in dir(backend) if not name.startswith("_")} - set(dir(Backend))
    assert added <= {"name"}


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_forward_has_its_backward(op: str) -> None:
    assert f"{op}_backward" in PUBLIC


def test_fused_operations_are_overridden_in_pairs(backend: Backend) -> None:
    own = {name for name in PUBLIC if getattr(type(backend), name) is not getattr(Backend, name)}
    for op in OPERATIONS:
        assert (f"{op}_forward" in own) == (f"{op}_backward" in own), op


@pytest.mark.parametrize("missing", sorted(Primitives.__abstractmethods__))
def test_backend_that_lacks_a_primitive_cannot_be_made(missing: str) -> None:
    methods = {name: lambda _: None for name in Primitives.__abstractmethods__ if name != missing}
    incomplete = type("Incomplete", (Backend,), methods)
    with pytest.raises(TypeError, match=rf"Incomplete.*\b{missing}\b"):
        incomplete()


def test_every_public_method_is_documented() -> None:
    assert [name for name in PUBLIC if not inspect.getdoc(getattr(Backend, name))] == []


def test_unknown_backend_is_named() -> None:
    with pytest.raises(BackendUnavailable, match="opencl"):
        get_backend("opencl")


def test_importing_minicnn_imports_nothing_heavy() -> None:
    program = (
        "import sys, minicnn, minicnn.layers, minicnn.models, minicnn.optim, minicnn.testing;"
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_on_numpy_needs_numpy_alone(tmp_path: Path) -> None:
    """A Python that sees no installed package but NumPy trains all the same."""
    for folder in Path(np.__file__).parents[1].glob("numpy*"):
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "minicnn").symlink_to(Path(minicnn.__file__).parent)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\n"
        "from minicnn import Trainer, models, optim\n"
        "m = models.create('lenet5', in_channels=1, num_classes=3, image_size=12, backend='auto')\n"
        "assert m.backend.name == 'numpy', m.backend.name\n"
        "t = Trainer(m, optim.SGD(lr=0.1))\n"
        "print(t.step(np.ones((2, 1, 12, 12), 'float32'), np.array([0, 1])))\n"
    )
    command = [sys.executable, "-S", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 5


def test_with_ceil_mode_no_window_begins_in_the_padding_after() -> None:
    """Said in numbers: the other tests of padding by sides take the sizes of outputs from this function."""
    assert shapes.pool_output_size(5, 4, 5, (0, 2), 1, True) == 1
    assert shapes.pool_output_size(5, 4, 5, (1, 2), 1, True) == 2
    assert shapes.pool_output_size(5, 4, 5, (2, 0), 1, True) == 2
