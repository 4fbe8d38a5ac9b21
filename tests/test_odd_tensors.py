"""Tensors without values of their own, and sizes that overflow: one error each, and no dead process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import LISTED

from minicnn.backends import available_backends

REASON = available_backends()["cpp"]
if REASON is not None and "cpp" not in LISTED:
    pytest.skip(f"cpp is not available here: {REASON}", allow_module_level=True)

PROGRAM = """
import json, sys, threading
from unittest import mock
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from minicnn import get_backend

cpp = get_backend("cpp")

def fake():
    with FakeTensorMode():
        x = torch.ones(2, 3)
    cpp.relu_forward(x)

def fake_parameter():
    with FakeTensorMode():
        x = torch.nn.Parameter(torch.ones(2, 3))
    cpp.sgd_step([x], [x], [x], lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)

def functional():
    cpp.relu_forward(torch._to_functional_tensor(torch.ones(2, 3)))

def vmapped():
    torch.func.vmap(cpp.relu_forward)(torch.ones(2, 3))

def transformed():
    torch.func.grad(lambda x: cpp.relu_forward(x).sum())(torch.ones(3))

def exported():
    class Module(torch.nn.Module):
        def forward(self, x):
            return cpp.relu_forward(x)
    torch.export.export(Module(), (torch.ones(2, 3),), strict=False)

def mocked():
    cpp.relu_forward(mock.Mock(spec=torch.Tensor))

def zero():
    cpp.relu_forward(torch._efficientzerotensor(4))

def shrunk():
    x = torch.ones(1000, 1000)
    x.untyped_storage().resize_(0)
    cpp.relu_forward(x)

def shrunk_to_half():
    x = torch.ones(8, 2).t()
    x.untyped_storage().resize_(32)
    cpp.softmax_forward(x)

def shrunk_labels():
    labels = torch.zeros(4, dtype=torch.int64)
    labels.untyped_storage().resize_(8)
    cpp.softmax_cross_entropy_forward(torch.ones(4, 2), labels)

def softmax_of_nothing():
    cpp.softmax_forward(torch.empty(0, 1 << 62))

def relu_of_too_much():
    cpp.relu_forward(torch.ones(1).expand(1 << 20, 1 << 20, 1 << 10))

def images_of_nothing():
    cpp.max_pool2d_forward(torch.empty(0, 1, 1 << 30, 1 << 30), kernel_size=(2, 2), stride=(2, 2),
                           padding=(0, 0), dilation=(1, 1), ceil_mode=False)

def labels_that_change():
    logits, labels = torch.ones(4096, 2), torch.zeros(4096, dtype=torch.int64)
    done = threading.Event()
    def change():
        while not done.is_set():
            labels.fill_(1 << 40)
            labels.fill_(0)
    thread = threading.Thread(target=change)
    thread.start()
    refused = None
    try:
        for _ in range(2000):
            try:
                cpp.softmax_cross_entropy_backward(logits, labels)
            except ValueError as error:
                refused = error
    finally:
        done.set()
        thread.join()
    if refused:
        raise refused

for name in sys.argv[1:]:
    try:
        globals()[name]()
        message = None
    except ValueError as error:
        message = str(error)
    print(json.dumps([name, message]), flush=True)
"""

VALUES = "x: expected a tensor with its values in memory, got"
MESSAGES: dict[str, str] = {
    "fake": f"[relu] {VALUES} FakeTensor",
    "fake_parameter": "[sgd_step] params[0]: expected a tensor with its values in memory, got FakeTensor",
    "functional": f"[relu] {VALUES} Tensor (Functionalize)",
    "vmapped": "[relu] x: expected a dense tensor, got ",
    "transformed": "[relu] x: expected a dense tensor, got ",
    "exported": f"[relu] {VALUES} FakeTensor",
    "mocked": "[relu] x: expected a torch.Tensor, got Mock",
    "zero": f"[relu] {VALUES} Tensor (ZeroTensor)",
    "shrunk": "[relu] x: expected a storage of at least 4000000 bytes, got 0",
    "shrunk_to_half": "[softmax] x: expected a storage of at least 64 bytes, got 32",
    "shrunk_labels": "[softmax_cross_entropy] labels: expected a storage of at least 32 bytes, got 8",
    "softmax_of_nothing": "[softmax] x: expected fewer than 2**48 elements, got shape (0, 461168601",
    "relu_of_too_much": "[relu] x: expected fewer than 2**48 elements, got shape (1048576, 1048576, 1024)",
    "images_of_nothing": "[max_pool2d] x: expected fewer than 2**48 elements, got shape (0, 1, ",
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    """Call -> the words of the ValueError that it raises, in a process of its own."""
    names = [*MESSAGES, "labels_that_change"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, timeout=300, check=False
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0, f"exit status {done.returncode} after {[*found]}: {done.stderr}"
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_odd_tensors_are_refused(name: str, outcomes: dict[str, str | None]) -> None:
    assert (outcomes[name] or "no error").startswith(MESSAGES[name])


def test_labels_may_change_while_the_loss_is_computed(outcomes: dict[str, str | None]) -> None:
    message = outcomes["labels_that_change"]
    assert message is None or "labels: expected values from 0 to 1, got" in message
