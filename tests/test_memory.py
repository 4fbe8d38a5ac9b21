"""Runs that cannot fit into memory are refused in one line, before anything is allocated."""

import re
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minicnn import data, distributed, memory, models
from minicnn.app.commands import train
from minicnn.app.needs import check_needs, needs_of
from minicnn.app.settings import Config
from minicnn.backends import image_source as image_source_module
from minicnn.data.decode import Plan, decode
from minicnn.data.resize import resize_images
from minicnn.data.scan import list_images
from minicnn.memory import NotEnoughMemory, available_memory, check_memory, training_memory


def machine(tmp_path, monkeypatch, meminfo="", cgroup="", **groups):
    """A machine with these files in place of its own."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroups")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    if meminfo:
        (tmp_path / "proc" / "meminfo").write_text(meminfo)
    (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, files in groups.items():
        folder = tmp_path / "cgroups" / name.replace("_", "/").strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_text(content)


MEMINFO = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    5000 kB\nSwapFree: 500 kB\n"


def test_available_memory_of_a_machine(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, MEMINFO)
    assert available_memory() == 5500 * 1024


@pytest.mark.parametrize(
    ("cgroup", "groups", "left"),
    [
        ("0::/a/b\n", {"a_b": {"memory.max": "max", "memory.stat": "anon 7\n"}}, 5500 * 1024),
        ("0::/a/b\n", {"a_b": {"memory.max": "1000\n", "memory.stat": "anon 700\nfile 900\n"}}, 300),
        ("0::/a/b\n", {"a": {"memory.max": "1000\n", "memory.stat": "anon 900\n"}}, 100),
        ("0::/\n", {"": {"memory.max": "1000\n", "memory.stat": "anon 2000\n"}}, 0),
        (
            "3:cpu:/x\n4:memory:/a\n",
            {"memory_a": {"memory.limit_in_bytes": "1000\n", "memory.stat": "total_rss 1\n"}},
            999,
        ),
    ],
    ids=["no limit", "limit", "limit above", "container", "version 1"],
)
def test_a_cgroup_may_allow_less(tmp_path, monkeypatch, cgroup, groups, left):
    machine(tmp_path, monkeypatch, MEMINFO, cgroup, **groups)
    assert available_memory() == left


def test_without_proc_the_machine_s_memory_counts(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.get)
    assert available_memory() == 40_960

    def unknown(_):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert available_memory() is None
    check_memory(1 << 70, "anything", "")


def test_the_message_says_how_much(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2_340_000_000)
    check_memory(2_340_000_000, "all", "")
    with pytest.raises(
        NotEnoughMemory, match=r"^all needs 12\.3 GB of memory, and 2\.3 GB are available; less$"
    ):
        check_memory(12_345_000_000, "all", "less")


def test_training_memory_counts_weights_gradients_and_kept_maps():
    model = models.build("simple_cnn", in_channels=3, num_classes=10, image_size=32)
    weights = sum(array.size for array in model.state_shapes().values())
    # Each layer with weights keeps its input; the maps before ReLU and pooling are not kept.
    kept = 3 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8 + 128
    assert training_memory(model, (3, 32, 32), 5) == 4 * (2 * weights + 5 * kept)
    model = models.create("simple_cnn", in_channels=3, num_classes=10, image_size=32, backend="numpy")
    model.freeze("conv1")
    first = 32 * 3 * 3 * 3 + 32
    assert training_memory(model, (3, 32, 32), 5) == 4 * (2 * weights - first + 5 * (kept - 3 * 32 * 32))


@pytest.fixture
def root(tmp_path):
    """Two classes of four images of 3x100x80."""
    for name in "ab":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (80, 100), (i, 2, 3)).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_large_images_are_refused_once_one_is_decoded(root, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * 3 * 100 * 80 - 1)
    words = (
        r"decoding 8 images of 3x100x80 needs 0\.2 MB of .*; --image-size N scales all to N by N pixels, "
    )
    with pytest.raises(NotEnoughMemory, match=words):
        data.load(f"folder:{root}")
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * 3 * 100 * 80)
    assert len(data.load(f"folder:{root}").train) == 6
    with pytest.raises(NotEnoughMemory, match=r"8 images of 3x200x200 .*; --image-size can be smaller"):
        data.load(f"folder:{root}", image_size=200)


@pytest.mark.parametrize(("lacking", "refused"), [(0, False), (1, True)])
def test_a_coloured_image_after_grey_ones_is_counted(root, monkeypatch, lacking, refused):
    listed = list_images(root, ["a", "b"])
    Image.new("L", (80, 100)).save(listed[0][0])
    left = 8 * 3 * 100 * 80 - 100 * 80  # the grey one is in memory already
    monkeypatch.setattr(memory, "available_memory", lambda: left - lacking)
    with pytest.raises(NotEnoughMemory, match=r"8 images of 3x100x80") if refused else nullcontext():
        assert decode(listed).x.shape == (8, 3, 100, 80)


def test_scaling_up_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(NotEnoughMemory, match=r"scaling 2 images to 30x30 pixels needs"):
        resize_images(np.zeros((2, 1, 8, 8), np.uint8), 30)


def test_a_step_that_does_not_fit_is_refused_before_the_model_is_made(root, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 3_000_000)
    monkeypatch.setattr(models, "create", lambda *_, **__: pytest.fail("the model was made"))
    words = (
        r"^training simple_cnn on 8 images of 3x100x80, 128 at a time, needs \d+\.\d MB of memory \("
        r"0\.2 MB for images, .*\), and 3\.0 MB are available; --image-size \d+ would do$"
    )
    with pytest.raises(NotEnoughMemory, match=words):
        train.main(["--dataset", f"folder:{root}", "--backend", "numpy", "--dry-run"])


def test_the_settings_that_are_named_would_do(monkeypatch):
    config = Config.resolve(
        vars(train.parse(["--model", "vgg_small", "--batch-size", "512", "--backend", "cpp"]))
    )
    plan = Plan(2000, (3, 64, 96), 10, memory=30_000_000)
    monkeypatch.setattr(memory, "available_memory", lambda: 300_000_000)
    with pytest.raises(NotEnoughMemory) as error:
        check_needs(config, plan)
    told = str(error.value)
    assert re.match(
        r"training vgg_small on 2,000 images of 3x64x96, 512 at a time, needs 2\.3 GB of memory \(30", told
    )
    batch = int(re.search(r"--batch-size (\d+) or", told)[1])
    side = int(re.search(r"--image-size (\d+) would do$", told)[1])
    smaller = plan._replace(shape=(3, side, side), memory=2000 * 3 * side * side)
    check_needs(replace(config, batch_size=batch), plan)
    check_needs(config, smaller)
    with pytest.raises(NotEnoughMemory):
        check_needs(replace(config, batch_size=2 * batch), plan)
    needs = [
        needs_of(replace(config, optimizer=name, momentum=momentum), plan)
        for name, momentum in (("sgd", None), ("sgd", 0.9), ("adam", None))
    ]
    weights = needs[1].model - needs[0].model
    assert [one.model - needs[0].model for one in needs] == [0, weights, 2 * weights]
    check_needs(
        config, plan._replace(shape=(3, 1, 1))
    )  # the model takes no such images, which it tells itself


def test_a_card_must_hold_weights_optimizer_and_a_batch(monkeypatch):
    """On cuda the machine's memory holds the decoded images, and the card's what a step takes."""
    flags = ["--model", "vgg_small", "--batch-size", "512", "--backend", "cuda", "--optimizer", "adam"]
    config = Config.resolve(vars(train.parse(flags)))
    plan = Plan(2000, (3, 64, 96), 10, memory=36_864_000)
    needs = needs_of(config, plan)
    assert needs == needs_of(replace(config, backend="cpp"), plan)
    monkeypatch.setattr(memory, "available_memory", lambda: plan.memory)
    monkeypatch.setattr(memory, "card_memory", lambda: needs.model + needs.batch)
    check_needs(config, plan)
    monkeypatch.setattr(memory, "card_memory", lambda: needs.model + needs.batch - 1)
    with pytest.raises(NotEnoughMemory) as error:
        check_needs(config, plan)
    told = re.search(
        r"of the card's memory \(\d+\.\d MB for weights, gradients and optimizer, .* for a batch\), and "
        r".* are available; --batch-size (\d+) or --image-size (\d+) would do$", str(error.value)
    )  # fmt: skip
    check_needs(replace(config, batch_size=int(told[1])), plan)
    side = int(told[2])
    check_needs(config, plan._replace(shape=(3, side, side), memory=2000 * 3 * side * side))
    monkeypatch.setattr(memory, "card_memory", lambda: 1_000_000)
    with pytest.raises(NotEnoughMemory, match=r"are available; a smaller --model takes less$"):
        check_needs(config, plan)


def test_images_on_a_card_are_counted_where_they_must_be_there(monkeypatch):
    flags = ["--model", "lenet5", "--batch-size", "1", "--backend", "cuda", "--data-on", "device"]
    config = Config.resolve(vars(train.parse(flags)))
    plan = Plan(2000, (3, 64, 96), 10, memory=0)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    monkeypatch.setattr(memory, "card_memory", lambda: 2000 * 3 * 64 * 96)
    with pytest.raises(
        NotEnoughMemory, match=r"\(36\.9 MB for images, .*; --data-on host or --image-size 48 w"
    ):
        check_needs(config, plan)
    check_needs(replace(config, data_on="host"), plan)
    check_needs(replace(config, data_on="auto"), plan)
    monkeypatch.setattr(memory, "card_memory", lambda: None)
    check_needs(config, plan)


def test_images_go_to_a_card_where_a_step_still_fits_beside_them(monkeypatch):
    x = np.zeros((10, 1, 4, 5), np.uint8)
    monkeypatch.setattr(memory, "card_memory", lambda: 450)
    monkeypatch.setattr(image_source_module, "_on_card", lambda images, **_: images)
    monkeypatch.setattr(image_source_module, "Streamed", lambda *_, **__: "streamed")
    card = SimpleNamespace(name="cuda", label="cuda")
    assert isinstance(image_source_module.image_source(card, x, beside=50), image_source_module.Resident)
    assert image_source_module.image_source(card, x, beside=51) == "streamed"


def test_a_test_takes_the_memory_of_the_images_that_are_predicted_at_once():
    config = Config.resolve(
        vars(train.parse(["--model", "lenet5", "--freeze", "conv", "--backend", "numpy"]))
    )
    assert needs_of(config, Plan(5000, (1, 28, 28), 10, memory=0)).batch == 256 * 28 * 28 * 4


def test_a_plan_is_told_before_anything_is_decoded(root, tmp_path):
    plans = []

    def refuse(plan):
        plans.append(plan)
        raise NotEnoughMemory("no")

    for in_memory in (10**6, 0):
        with pytest.raises(NotEnoughMemory):
            data.load(f"folder:{root}", planned=refuse, in_memory=in_memory, cache=tmp_path / "cache")
    with pytest.raises(NotEnoughMemory):
        data.load("fashion-mnist-sample", image_size=(40, 50), planned=refuse)
    shape, size = (3, 100, 80), 3 * 100 * 80
    assert plans[:2] == [Plan(8, shape, 2, 8 * size), Plan(8, shape, 2, 0)]
    assert plans[2] == Plan(12_000, (1, 40, 50), 10, 12_000 * 40 * 50)
    assert not (tmp_path / "cache").exists()


def test_each_process_of_the_machine_counts(monkeypatch):
    config = Config.resolve(
        vars(train.parse(["--model", "vgg_small", "--batch-size", "512", "--shards", "8"]))
    )
    plan = Plan(2000, (3, 64, 96), 10, memory=30_000_000)
    whole, part = needs_of(replace(config, shards=1), plan), needs_of(config, plan)
    assert part.batch == whole.batch // 8
    group = distributed.Group()
    group.size = 2
    monkeypatch.setattr(distributed, "current", lambda: group)
    synced = needs_of(replace(config, sync_batch_norm=True), plan)
    assert synced.batch == whole.batch // 2
    weights = 4 * sum(
        a.size
        for a in models.build("vgg_small", in_channels=3, num_classes=10, image_size=(64, 96))
        .state_shapes()
        .values()
    )
    # One row for each depth of the tree of 4 shards, and one that is received.
    assert synced.model == whole.model + 4 * weights
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "a",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * synced.total)
    check_needs(replace(config, sync_batch_norm=True), plan)
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * synced.total - 1)
    with pytest.raises(
        NotEnoughMemory, match=r"for a batch; that in each of the 2 processes on this machine\)"
    ):
        check_needs(replace(config, sync_batch_norm=True), plan)
