"""The benchmarks: what is timed gives the right results, and tables and plots show what was saved."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import augment
import figures
import links
import matplotlib
import numpy as np
import paired
import pytest
import report
import results
import rows
import trials
import whole_nets
from index_im2col import UsualNet
from kernels import check, kernels
from nets import NETS, batch, build

from minicnn import data

OURS_AND_TORCH = {"minicnn cpp": 2.0, "torch eager": 5.0, "torch channels-last": 3.0, "ONNX Runtime": 1.5}


def test_all_available_rows_agree() -> None:
    """In a separate process: JAX, if it is installed, starts threads that a later fork may not survive."""
    script = Path(paired.__file__).with_name("steps.py")
    command = [sys.executable, str(script), "--check", "--no-compile", "--batches", "4"]
    done = subprocess.run([*command, "--nets", "lenet5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_rows_that_differ_are_found() -> None:
    other = rows.training_step("torch eager", "lenet5", 3)  # fewer images, so another loss
    with pytest.raises(AssertionError, match="minicnn"):
        rows.check_losses({"minicnn cpp": rows.training_step("minicnn cpp", "lenet5", 4), "other": other})


@pytest.mark.parametrize("name", NETS)
def test_gradients_that_differ_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = rows.training_step("minicnn cpp", name, 4)
    monkeypatch.setitem(NETS, name, NETS[name]._replace(lr=0.9 * NETS[name].lr))
    with pytest.raises(AssertionError, match="changes of loss"):
        rows.check_losses({"minicnn cpp": ours, "other": rows.training_step("torch eager", name, 4)})


@pytest.mark.parametrize("name", NETS)
def test_steps_agree_with_torch(name: str) -> None:
    rows.check_losses(
        {row: rows.training_step(row, name, 4) for row in OURS_AND_TORCH if row in rows.TRAINING}
    )


def test_the_usual_numpy_net_takes_the_same_steps() -> None:
    x, y = batch("lenet5", 4)
    usual = UsualNet(build("lenet5", "numpy").state_dict(), "lenet5")
    steps = {
        "minicnn numpy": rows.training_step("minicnn numpy", "lenet5", 4),
        "usual": lambda: usual.step(x, y, NETS["lenet5"].lr, rows.MOMENTUM),
    }
    rows.check_losses(steps)


@pytest.mark.parametrize("part", ["lenet_conv1", "resnet_strided", "simple_map1", "lenet_fc1"])
def test_kernels_agree_with_torch(part: str) -> None:
    chosen = [kernel for kernel in kernels() if part in kernel.name]
    assert chosen
    for kernel in chosen:
        check(kernel, "minicnn cpp", kernel.make("minicnn cpp")(), kernel.make("torch eager")())


def test_sides_take_turns() -> None:
    order = []
    sides = {"a": lambda: (order.append("a"), time.sleep(0.01)), "b": lambda: order.append("b")}
    times = paired.time_in_turn(sides, seconds=0, least_rounds=2)
    assert times["a"] > 10 > times["b"]
    changes = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert changes == ["a", "b", "a", "b"]


def test_a_ratio_is_to_the_fastest_way_of_running_torch() -> None:
    assert results.best_torch(OURS_AND_TORCH) == "torch channels-last"
    assert results.ratio(OURS_AND_TORCH) == 1.5


def entry(name: str, n: int, **changed: float) -> dict[str, Any]:
    machine = {"cpu": "a CPU", "threads": 2, "torch": "2", "commit": "abc"}
    ms = OURS_AND_TORCH | changed
    return {"net": name, "batch": n, "phase": "training", "milliseconds": ms, "machine": machine}


def test_losses_are_told() -> None:
    lost = whole_nets.losses({"lenet5, batch 128, training": entry("lenet5", 128)})
    assert "| lenet5, batch 128, training | ONNX Runtime | 1.5 | 2 | 0.75 |" in lost
    assert lost.count("\n|") == 3
    assert "none" in whole_nets.losses({"a": entry("lenet5", 128, **{"ONNX Runtime": 2.5})})


def test_kernel_losses_are_told() -> None:
    kernels = {"slow": entry("lenet5", 1, **{"minicnn cpp": 4.0}), "quick": entry("lenet5", 1)}
    told = report.kernel_losses({"kernels": kernels})
    assert told == "Of 2 operations PyTorch is faster in 1: slow 0.75."


def test_a_second_thread_that_slows_is_told() -> None:
    result = {
        f"a, {threads}": entry("lenet5", 1, **{"minicnn cpp": ms})
        for threads, ms in (("1 thread", 1.0), ("2 threads", 2.0))
    }
    assert "| a | 1 | 2 |" in whole_nets.second_thread_lost(result)
    result["a, 1 thread"] = entry("lenet5", 1, **{"minicnn cpp": 3.0})
    assert whole_nets.second_thread_lost(result) == "Nothing."


def test_recipes_say_how_many_epochs_were_timed() -> None:
    side = {"seeds": {"0": 0.9}, "accuracy": 0.9, "standard error": None}
    machine = entry("lenet5", 1)["machine"]
    time = {"minicnn": 60.0, "torch": 120.0, "torch / minicnn": 2.0, "epochs timed": 2, "machine": machine}
    told = report.recipes({"quick": {"settings": ["--epochs=9"], "minicnn": side, "times": {"Some": time}}})
    assert "| quick | 90.00% (one seed) |  |" in told
    assert "| quick | Some | 1.00 | 2.00 | **2.0** | 2 of 9 |" in told


def test_long_times_have_no_exponent() -> None:
    assert [results.milliseconds(t) for t in (0.01234, 12.34, 1234.5)] == ["0.0123", "12.3", "1234"]


def test_blocks_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "before\n<!-- headline: begin -->\nold\n<!-- headline: end -->\nafter\n"
    monkeypatch.setattr(report, "load", lambda _: {"a": entry("lenet5", 128)})
    new = report.filled(text)
    assert "| lenet5, 128 | 2.00 | 3.00 | **1.50** |" in new
    assert "old" not in new
    assert report.filled(new) == new
    assert new.startswith("before\n")
    assert new.endswith("after\n")


def test_kills_are_counted_by_moment() -> None:
    killed = {
        "before the first checkpoint, while a file was written": 3, "in the report, between two writes": 4,
        "in training, between two writes": 2, "in training, while a file was written": 1,
    }  # fmt: skip
    result = entry("lenet5", 1) | {"trials": 8, "kills": 10, "killed": killed, "same end, bit for bit": 7}
    said = trials.kill_resume(result)
    assert (
        "10 kills: 3 in training, 4 in the report, 3 before the first checkpoint; 4 of them while" in said
    )
    assert "7 ended" in said


def test_a_link_is_fitted_and_tells_what_more_workers_take() -> None:
    link = links.fitted({1_000: 60e-6, 1_001_000: 1060e-6})
    np.testing.assert_allclose(link, (59e-6, 1e9), rtol=1e-9)
    for way in links.WAYS.values():
        assert way(1, 1e6, link) == 0
    small, large = 4_000, 40_000_000
    np.testing.assert_allclose(links.ours(8, small, link), 3 * (59e-6 + 4e-6))
    np.testing.assert_allclose(links.ours(4, large, link), 4 * 59e-6 + 60e-3)  # 3/4 of the row, twice
    np.testing.assert_allclose(links.ring(4, large, link), 6 * 59e-6 + 60e-3)
    np.testing.assert_allclose(links.tree(4, large, link), 4 * (59e-6 + 40e-3))
    times = dict.fromkeys(("1 process, 2 threads", "2 processes, fast", "2 processes, PyTorch DDP"), 5.0)
    times |= {"1 process, 1 thread": 9.0, "2 processes, ordered": 4.0}
    check = {"4": {"measured": 2e-3, "predicted": 1e-3}}
    net = {"batch": 128, "bytes": small, "milliseconds": times}
    said = links.scaling(
        entry("lenet5", 1) | {"nets": {"lenet5": net}, "exchange": check, "exchange_bytes": large}
    )
    assert "| lenet5, 128 | 5 | 4 | 5 | 5 | 1.25 | 1.25 |" in said
    assert "4 processes 2.00 ms (predicted 1.00)" in said


def test_where_a_step_of_two_processes_spends_its_time() -> None:
    single = {"forward": 3.0, "backward": 5.0, "optimizer": 1.0, "all": 9.5, "processor": 18.0}
    double = {
        "forward": 3.0,
        "backward": 6.0,
        "optimizer": 2.0,
        "wait": 4.0,
        "all": 19.0,
        "processor": 16.0,
    }
    alone = {"all": 2.0, "processor": 0.5}
    sides = {
        "1 process, 2 threads": {"lenet5": {"step": single}},
        "2 processes": {"lenet5": {"bytes": 2_500_000, "step": double, "exchange": alone}},
    }
    said = links.parts(entry("lenet5", 1) | {"sides": sides})
    row = "| lenet5 | 3 / 3 | 5 / 6 | 1 / 2 | 4 | 4 | 9.5 / 19 | 2.50 | 2 | 0.5 | 0.50 | 0.95 |"
    assert row in said


def test_a_plot_of_other_results_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {f"{name} {n}": entry(name, n) for name in ("lenet5", "vgg_like") for n in NETS[name].batches}
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    monkeypatch.setattr(figures, "load", lambda _: saved)
    monkeypatch.setattr(figures, "PLOTS", {"speedup": (lambda: saved, figures.speedup)})
    assert figures.stale() == ["speedup.png", "speedup-dark.png"]
    before = dict(matplotlib.rcParams)
    figures.draw(figures.stale())
    assert dict(matplotlib.rcParams) == before, "a run's plots must not depend on what was drawn before"
    assert figures.stale() == []
    saved["lenet5 128"]["milliseconds"]["minicnn cpp"] = 1.0
    assert figures.stale() == ["speedup.png", "speedup-dark.png"]


def test_shares_of_the_peaks() -> None:
    kernel = {"MFLOP": 100.0, "MB": 10.0, "milliseconds": {"minicnn cpp": 2.0}}
    shares = results.shares(kernel, {"GFLOP/s": 100.0, "GB/s": 20.0}, "minicnn cpp")
    np.testing.assert_allclose(shares, (0.5, 0.25))


def test_what_is_timed_of_augmentation_is_a_batch() -> None:
    dataset = data.load(data.SAMPLE, limit_train=200, limit_test=10)
    made = augment.operation(dataset, "flip,mixup=1")()
    first, _ = next(augment.batches(dataset, "flip,mixup=1").epoch(0))
    np.testing.assert_array_equal(made.numpy(), first.numpy())
