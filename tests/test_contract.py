"""What a backend is: the contract's names and signatures, all of them, and what importing costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from conftest import LISTED

from minicnn.backends import Backend, BackendUnavailable, available_backends, get_backend
from minicnn.backends.primitives import Primitives

PUBLIC = [name for name, member in inspect.getmembers(Backend, callable) if not name.startswith("_")]
OPERATIONS = [name.removesuffix("_forward") for name in PUBLIC if name.endswith("_forward")]


@pytest.mark.parametrize("name", ["numpy", "cpp", "cuda"])
def test_backend_can_be_had_or_says_why_not(name: str) -> None:
    reason = available_backends().get(name, f"{name} is no backend of this version")
    if reason is None or name in LISTED:
        assert get_backend(name).name == name
        return
    with pytest.raises(BackendUnavailable, match=name):
        get_backend(name)
    pytest.skip(f"{name} cannot be had here: {reason}")


def test_auto_is_one_of_the_available() -> None:
    assert available_backends()[get_backend("auto").name] is None


@pytest.mark.parametrize("name", PUBLIC)
def test_signature_is_the_contract(backend: Backend, name: str) -> None:
    wanted = list(inspect.signature(getattr(Backend, name)).parameters.values())[1:]
    got = list(inspect.signature(getattr(backend, name)).parameters.values())
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


def test_numpy_backend_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, minicnn\n"
        "from minicnn import Trainer, models, optim\n"
        "m = models.create('lenet5', in_channels=1, num_classes=3, image_size=12, backend='auto')\n"
        "assert m.backend.name == 'numpy', m.backend.name\n"
        "t = Trainer(m, optim.SGD(lr=0.1))\n"
        "print(t.step(np.ones((2, 1, 12, 12), 'float32'), np.array([0, 1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout.split()[-1]) < 5
