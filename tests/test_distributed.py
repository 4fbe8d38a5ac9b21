"""Several processes train to the same bits as one, whatever happens to them."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_shards import net

from minicnn import Trainer, distributed, models, optim, set_num_threads
from minicnn.app import together
from minicnn.app.commands import train
from minicnn.app.settings import Config
from minicnn.distributed import Group, layout
from minicnn.distributed.shards import Shards
from minicnn.distributed.torch_group import HALVED_FROM
from minicnn.layers import Conv2d, Dense, Flatten, ReLU, Sequential
from scripts import kill_resume, kill_workers, workers

EVERYTHING = [
    "--threads", "1", "--limit-train", "997", "--limit-test", "300", "--batch-size", "256", "--epochs", "1",
    "--augment", "flip,rotate=5,mixup=0.2", "--ema", "0.9", "--clip-norm", "0.5", "--tta", "flip",
    "--class-weight", "balanced", "--quiet",
]  # fmt: skip


def errors(log: Path) -> list[str]:
    """What each rank printed on stderr, in the order of the ranks."""
    return [path.read_text() for path in sorted(log.iterdir())]


def run(size: int, out: Path, *flags: str) -> list[str]:
    """Train with so many processes; what the ranks printed on stderr."""
    log = out.with_name(f"{out.name}-log")
    codes = workers.end(workers.train(size, log, [*flags, "--out", str(out)]))
    assert codes == [0] * size, errors(log)
    return errors(log)


# ---- processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "model", "sizes"),
    [("numpy", "lenet5", (2, 4)), ("cpp", "lenet5", (2, 4)), ("numpy", "resnet20", (4,))],
)
def test_several_processes_end_with_the_bits_of_one(
    backend: str, model: str, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    flags = [*EVERYTHING, "--backend", backend, "--model", model, "--shards", "4"]
    if model != "lenet5":
        flags += ["--limit-train", "40", "--limit-test", "24", "--batch-size", "20", "--clip-norm", "5"]
    for size in (1, *sizes):
        assert run(size, tmp_path / str(size), *flags) == [""] * size
    for size in sizes:
        found = kill_resume.differences(tmp_path / str(size), tmp_path / "1")
        assert found == ["config.json: processes differs"]


def test_four_ranks_add_in_one_order_whole_rows_and_halves(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert workers.end(workers.start(4, log, summed, tmp_path)) == [0] * 4, errors(log)
    for length in LENGTHS:
        rows = [row_of(rank, length) for rank in range(4)]
        expected = (rows[0] + rows[1]) + (rows[2] + rows[3])
        assert not np.array_equal(expected, ((rows[0] + rows[1]) + rows[2]) + rows[3])
        for rank in range(4):
            np.testing.assert_array_equal(np.load(tmp_path / f"{rank}-{length}.npy"), expected)
    alone = trained_in_many_messages()
    for rank in range(4):
        for name, array in np.load(tmp_path / f"{rank}.npz").items():
            np.testing.assert_array_equal(array, alone[name])


LENGTHS = (1001, HALVED_FROM + 3, 100_003)


def row_of(rank: int, length: int) -> np.ndarray:
    return np.random.default_rng(rank).normal(size=length).astype(np.float32)


def summed(folder: Path) -> None:
    """Save this rank's sums of rows of each length."""
    with distributed.group() as group:
        for length in LENGTHS:
            row = row_of(group.rank, length)
            group.add(row)
            np.save(folder / f"{group.rank}-{length}.npy", row)
        np.savez(folder / f"{group.rank}.npz", **trained_in_many_messages())


def trained_in_many_messages() -> dict[str, np.ndarray]:
    """The state after steps of four shards, one of which has no image; filters of cpp lie channels-last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LARGE", 30)
        patch.setattr(layout, "BUCKET", 50)
        layers = [Conv2d(2, 8, 3), ReLU(), Conv2d(8, 4, 3), Flatten(), Dense(64, 3)]
        model = Sequential(*layers, backend="cpp", seed=3)
        trainer = Trainer(model, optim.SGD(lr=0.1), shards=4)
        generator = np.random.default_rng(1)
        for images in (3, 9):
            x = generator.normal(size=(images, 2, 8, 8)).astype(np.float32)
            trainer.step(x, generator.integers(0, 3, images))
        return model.state_dict()


@pytest.mark.parametrize("size", [1, 2])
def test_fast_sums_are_the_ordered_ones_but_for_rounding(size: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    codes = workers.end(workers.start(size, log, both_sums, tmp_path))
    assert codes == [0] * size, errors(log)
    ordered, fast = (np.load(tmp_path / f"{reduce}-0.npz") for reduce in ("ordered", "fast"))
    assert len(ordered) > 60
    for name, expected in ordered.items():
        np.testing.assert_allclose(fast[name], expected, rtol=1e-10, atol=1e-13, err_msg=name)
    if size == 2:
        for name, expected in np.load(tmp_path / "fast-1.npz").items():
            np.testing.assert_array_equal(fast[name], expected)


def both_sums(folder: Path) -> None:
    """Save the states after three steps with each way of summing, in many messages."""
    layout.LARGE, layout.BUCKET = 3000, 5000
    generator = np.random.default_rng(1)
    batches = [(generator.normal(size=(n, 3, 16, 16)), generator.integers(0, 4, n)) for n in (9, 8, 12)]
    with distributed.group() as group:
        for reduce in ("ordered", "fast"):
            model = models.create(
                "resnet20", in_channels=3, num_classes=4, image_size=16, backend="numpy", dtype="float64"
            )
            trainer = Trainer(model, optim.SGD(lr=0.01), shards=4, reduce=reduce)
            for x, y in batches:
                trainer.step(x, y)
            np.savez(folder / f"{reduce}-{group.rank}.npz", **model.state_dict())


def test_killed_workers_restarted_in_other_numbers(tmp_path: Path) -> None:
    result = kill_workers.run(range(1), tmp_path)
    assert result["differences"] == {}
    assert result["kills"] == 10


SMALL = [*kill_workers.SETTINGS, "--epochs", "200", "--schedule", "constant"]


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while kill_workers.steps(folder) < step and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kill_workers.steps(folder) >= step


def test_a_signal_stops_all_at_one_step_and_another_number_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    started = workers.train(2, tmp_path / "log", [*SMALL, "--out", str(out)])
    wait_for_step(out, 1)
    started[1].terminate()  # rank 1 alone is asked
    assert workers.end(started) == [130, 2]
    told, nothing = errors(tmp_path / "log")
    assert told.startswith("interrupted in epoch ")
    assert nothing == ""
    last = json.loads((out / "config.json").read_text())
    assert (last["processes"], last["shards"]) == (2, 4)
    before = kill_workers.steps(out)
    more = workers.train(4, tmp_path / "log", ["--resume", "--out", str(out)])
    wait_for_step(out, before + 1)
    more[3].terminate()
    assert workers.end(more) == [130, 2, 2, 2]


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_rank_that_hangs_or_ends_is_told_of(how: signal.Signals, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    started = workers.train(2, log, [*SMALL, "--peer-timeout", "8", "--out", str(out)])
    wait_for_step(out, 1)
    assert started[1].pid is not None
    os.kill(started[1].pid, how)
    started[0].join(60)
    started[1].kill()
    assert started[0].exitcode == 2
    (line,) = errors(log)[0].splitlines()
    whom = "(rank 1|the others)"  # what the two were doing is left to chance
    assert re.match(
        rf"error: \[distributed\] rank 0: expected an answer of {whom} within 8 s, got none: ", line
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.2"], "error: rank 1: --lr: expected 0.003 as on rank 0, got 0.2"),
        (["--init-from", "missing.pt"], "error: rank 1: missing.pt: there is no such file"),
    ],
)
def test_ranks_that_differ(flags: list[str], message: str, tmp_path: Path) -> None:
    arguments = [*SMALL, "--out", str(tmp_path / "run")]
    started = workers.start(2, tmp_path / "log", differing, arguments, flags)
    assert workers.end(started) == [2, 2]
    told, nothing = errors(tmp_path / "log")
    assert told.startswith(message)
    assert told.count("\n") == 1
    assert nothing == ""
    assert not (tmp_path / "run").exists()


def differing(arguments: list[str], flags: list[str]) -> None:
    """Train, but rank 1 has flags of its own."""
    workers.command([*arguments, *flags] if os.environ["RANK"] == "1" else arguments)


class Another(Group):
    """A group of two, whose other process tells something else of itself."""

    size = 2

    def __init__(self, **other: object) -> None:
        super().__init__()
        self.other = other

    def gather(self, value: Any) -> list[Any]:
        return [value, value | self.other if isinstance(value, dict) else None]


@pytest.mark.parametrize(
    "name",
    ["version of numpy", "backend", "--seed", "fingerprint of the data", "checksum of the first weights"],
)
def test_the_first_difference_between_ranks_is_named(name: str) -> None:
    config = Config(**dict.fromkeys((field.name for field in fields(Config)), 1))
    data = SimpleNamespace(fingerprint="0123456789abcdef")
    experiment: Any = SimpleNamespace(config=config, dataset=data, model=net(norm=False))
    together.check_alike(Another(), experiment)
    with pytest.raises(ValueError, match=rf"^rank 1: {name}: expected .* as on rank 0, got 'other'$"):
        together.check_alike(Another(**{name: "other"}), experiment)


def test_a_process_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = workers.free_port()
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    message = r"^\[distributed\] rank 0: expected 2 processes at 127.0.0.1:\d+ within 1 s, got "
    with pytest.raises(distributed.PeerError, match=message):
        train.main([*SMALL, "--peer-timeout", "1", "--out", str(tmp_path / "run")])
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(ValueError, match="as torchrun sets them, got no MASTER_PORT"):
        train.main([*SMALL, "--out", str(tmp_path / "run")])


def test_without_torchrun_there_is_one_process() -> None:
    with distributed.group() as group:
        assert (group.rank, group.size, group.is_first) == (0, 1, True)
        assert group.gather(5) == [5]
        assert Trainer(net(norm=True), optim.SGD(lr=0.1)).sharded is None


def test_the_example_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Two processes of examples/train_together.py, and one."""
    log = tmp_path / "log"
    assert workers.end(workers.start(2, log, example, tmp_path)) == [0, 0], errors(log)
    assert workers.end(workers.start(1, log, example, tmp_path)) == [0], errors(log)
    assert len({(tmp_path / name).read_text() for name in ("0 of 2", "1 of 2", "0 of 1")}) == 1


def example(folder: Path) -> None:
    set_num_threads(1)
    found = runpy.run_path(str(workers.ROOT / "examples/train_together.py"))["main"]()
    (folder / f"{os.environ['RANK']} of {os.environ['WORLD_SIZE']}").write_text(found)


def test_an_accelerated_module_trains_in_distributed_data_parallel(tmp_path: Path) -> None:
    for size in (1, 2):
        assert workers.end(workers.start(size, tmp_path / "log", data_parallel, tmp_path)) == [0] * size
    expected, *found = (
        np.load(tmp_path / f"{rank} of {size}.npz") for size, rank in ((1, 0), (2, 0), (2, 1))
    )
    for state in found:
        for name, array in expected.items():
            np.testing.assert_allclose(state[name], array, rtol=1e-5, atol=1e-6)


def data_parallel(folder: Path) -> None:
    """Save the weights after three steps, each process with its part of the batch."""
    import torch
    from torch import nn

    import minicnn.torch as fast

    set_num_threads(1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    with distributed.group() as group:
        fast.accelerate(module, choose="all")
        parallel = nn.parallel.DistributedDataParallel(module) if group.size > 1 else module
        part = Shards(group.size, group).part(len(x))
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(parallel(x[part]), y[part]).backward()
            optimizer.step()
        state = {name: a.numpy() for name, a in module.state_dict().items()}
        np.savez(folder / f"{group.rank} of {group.size}.npz", **state)
