"""What the commands print of the images before they use them, and --skip-bad."""

import shutil

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.app.command_line import make_console
from minicnn.app.commands import evaluate, preview, train
from minicnn.app.settings import Config
from minicnn.app.summary import load


@pytest.fixture
def root(tmp_path):
    """Two classes of six images, and a note."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            picture = rng.integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{i}.png")
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("a note")
    return tmp_path / "pictures"


def settings(dataset, *flags):
    """The settings of a run that learns from all training images."""
    return Config.resolve(vars(train.parse(["--dataset", dataset, "--validation", "0", *flags])))


def run(root, *more):
    arguments = [
        "--backend",
        "numpy",
        "--model",
        "lenet5",
        "--epochs",
        "1",
        "--out",
        str(root.parent / "run"),
    ]
    train.main(["--dataset", f"folder:{root}", *arguments, *more])


def test_train_tells_what_is_there(root, capsys):
    run(root)
    printed = capsys.readouterr().out
    assert "  cat: 4 training, 1 validation, 1 test\n  dog: 4 training, 1 validation, 1 test\n" in printed
    assert "sizes: 12x12: 12; grey: 12\n" in printed
    assert f"passed over, no image: 1 ({root}/cat/notes.txt)\n" in printed
    assert "warning" not in printed
    assert printed.index("passed over") < printed.index("epoch 1/1")
    assert not (root.parent / "run" / "skipped.txt").exists()


def test_bad_files_are_refused_or_left_out(root, capsys):
    for name in ("cat", "dog"):
        (root / name / "bad\n.png").write_bytes(b"")
    with pytest.raises(data.UnusableImages, match="2 files cannot be used"):
        run(root)
    assert "passed over, no image: 1" in capsys.readouterr().out
    assert not (root.parent / "run").exists()
    run(root, "--skip-bad")
    assert "left out, since they cannot be used: 2 (" in capsys.readouterr().out
    skipped = (root.parent / "run" / "skipped.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in skipped] == [
        f"{root}/{c}/bad\\x0a.png" for c in ("cat", "dog")
    ]
    run(root, "--resume")
    assert (root.parent / "run" / "skipped.txt").read_text().splitlines() == skipped

    checkpoint = ["--backend", "numpy", "--checkpoint", str(root.parent / "run" / "best.safetensors")]
    evaluate.main([*checkpoint, "--out", str(root.parent / "report")])  # it reads the test images alone
    assert not (root.parent / "report" / "skipped.txt").exists()
    kept = root.parent / "kept"
    shutil.copytree(root, kept)
    for i, picture in enumerate(sorted(kept.glob("*/?.png"))):  # others than those that were learnt from
        Image.new("L", (12, 12), 20 * i).save(picture)
    other = [*checkpoint, "--dataset", f"folder:{kept}", "--out", str(root.parent / "report")]
    with pytest.raises(data.UnusableImages):
        evaluate.main(other)
    evaluate.main([*other, "--skip-bad"])
    skipped = (root.parent / "report" / "skipped.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in skipped] == [
        f"{kept}/{c}/bad\\x0a.png" for c in ("cat", "dog")
    ]
    picture = ["--augment", "flip", "--images", "2", "--epochs", "1", "--out", str(root.parent / "p.png")]
    preview.main(["--dataset", f"folder:{root}", "--skip-bad", *picture])


def test_overwriting_a_run_deletes_its_list(root):
    (root / "cat" / "bad.png").write_bytes(b"")
    run(root, "--skip-bad")
    (root / "cat" / "bad.png").unlink()
    run(root, "--overwrite")
    assert not (root.parent / "run" / "skipped.txt").exists()


def test_a_white_drawing_on_a_transparent_ground_is_warned_of(root, capsys):
    logo = np.full((12, 12, 4), 255, np.uint8)
    logo[..., 3] = np.arange(12) * 20
    for i in range(6):
        Image.fromarray(logo).save(root / "dog" / f"{i}.png")
    load(make_console(), settings(f"folder:{root}"))
    assert (
        f"warning: 5 of 10 training images are of one shade, such as {root}/dog/" in capsys.readouterr().out
    )


def test_named_datasets_are_checked_too(tmp_path, capsys):
    from minicnn.data.idx import write_idx

    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", np.full((2, 3, 3), 51, np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.array([0, 1], np.uint8))
    load(make_console(), settings("mnist", "--data-dir", str(tmp_path)))
    assert "warning: 2 of 2 training images are of one shade: " in capsys.readouterr().out


def test_many_classes_are_cut(tmp_path, capsys):
    for i in range(30):
        (tmp_path / f"{i:02}").mkdir()
        for j in range(2):
            Image.new("L", (2, 2), i).save(tmp_path / f"{i:02}" / f"{j}.png")
    load(make_console(), settings(f"folder:{tmp_path}"))
    printed = capsys.readouterr().out
    assert "  19: 1 training, 1 test\n  and 10 more classes\n" in printed
    assert "  20: " not in printed
