"""Whole training steps and inference: a group per model, batch and phase, a row per backend and peer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import NETS as ALL_NETS
from nets import batch, build, torch_step
from peers import PEERS

from minicnn import Backend, Trainer, optim
from minicnn.fusion import fuse
from minicnn.torch_reference import to_torch

NETS = {name: ALL_NETS[name].batches[0] for name in ("lenet5", "simple_cnn", "vgg_like", "resnet20")}


@pytest.mark.parametrize("name", NETS)
def test_step(benchmark: Any, backend: Backend, name: str) -> None:
    x, y = batch(name, NETS[name])
    model = build(name, backend.name)
    expected = torch.nn.functional.cross_entropy(to_torch(model)(torch.from_numpy(x)), torch.from_numpy(y))
    trainer = Trainer(model, optim.SGD(0.05, 0.9))
    assert trainer.step(x, y) == pytest.approx(expected.item(), rel=1e-4)
    benchmark.group = f"{name}-{NETS[name]}-step"
    benchmark.pedantic(lambda: trainer.step(x, y), rounds=8, warmup_rounds=2)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("peer", PEERS)
def test_torch_step(benchmark: Any, name: str, peer: str) -> None:
    images, labels = batch(name, NETS[name])
    module = to_torch(build(name, "numpy")).to(memory_format=PEERS[peer].order)
    step = torch_step(
        PEERS[peer].wrap(module), PEERS[peer].images(images), torch.from_numpy(labels), 0.05, 0.9
    )
    benchmark.group = f"{name}-{NETS[name]}-step"
    assert np.isfinite(benchmark.pedantic(step, rounds=8, warmup_rounds=2))


@pytest.mark.parametrize(("name", "n"), [*NETS.items(), ("lenet5", 1)])
def test_inference(benchmark: Any, backend: Backend, name: str, n: int) -> None:
    x, _ = batch(name, n)
    model = build(name, backend.name)
    fuse(model)
    benchmark.group = f"{name}-{n}-inference"
    logits = benchmark.pedantic(lambda: model.predict(x), rounds=20, warmup_rounds=3)
    with torch.no_grad():
        expected = to_torch(model).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "n"), [*NETS.items(), ("lenet5", 1)])
@pytest.mark.parametrize("peer", PEERS)
def test_torch_inference(benchmark: Any, name: str, n: int, peer: str) -> None:
    x = PEERS[peer].images(batch(name, n)[0])
    module = PEERS[peer].wrap(to_torch(build(name, "numpy")).eval().to(memory_format=PEERS[peer].order))
    benchmark.group = f"{name}-{n}-inference"
    with torch.no_grad():
        logits = benchmark.pedantic(lambda: module(x), rounds=20, warmup_rounds=3)
    assert logits.shape == (n, 10)
